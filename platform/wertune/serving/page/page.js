// Records or takes a file, sends it, and shows what the two models write.
const by = (id) => document.getElementById(id);
const [record, choose, file, player, status, fault, answers] = [
  "record", "choose", "file", "player", "status", "fault", "answers",
].map(by);

let limits = { max_bytes: 64 * 2 ** 20, max_duration_s: 1800 };
let recording = null;
let busy = false;

function say(text) { status.textContent = text; }

function complain(text) {
  fault.textContent = text;
  fault.hidden = !text;
}

function setBusy(is) {
  busy = is;
  record.disabled = choose.disabled = is;
  answers.classList.toggle("waiting", is);
}

async function about() {
  const found = await (await fetch("about")).json();
  limits = found.limits;
  by("beside").textContent = found.names[0];
  by("version").textContent = found.names[1];
  by("formats").textContent = limits.formats.join(", ");
  found.kinds.forEach((kind, i) => { answers.children[i].querySelector(".role").textContent = kind; });
  document.title = `${found.names[1]} beside ${found.names[0]}`;
}

async function send(blob) {
  complain("");
  if (blob.size > limits.max_bytes) {
    complain(`The file has ${Math.round(blob.size / 2 ** 20)} MiB, but at most ${limits.max_bytes / 2 ** 20} are taken.`);
    return;
  }
  URL.revokeObjectURL(player.src);
  player.src = URL.createObjectURL(blob);
  player.hidden = false;
  setBusy(true);
  say("Listening to it …");
  try {
    // The type is one that no other site's form can send.
    const type = { "Content-Type": "application/octet-stream" };
    const response = await fetch("transcribe", { method: "POST", headers: type, body: blob });
    const found = await response.json();
    if (response.ok) show(found);
    else refuse(found.reason);
  } catch (error) {
    refuse(`The server gave no answer (${error.message}); is it still running?`);
  } finally {
    setBusy(false);
  }
}

function refuse(reason) {
  say("");
  answers.hidden = true;
  player.hidden = true;
  complain(reason.charAt(0).toUpperCase() + reason.slice(1));
}

function show({ duration_s, answers: found }) {
  const differ = found.some(({ words }) => words.some(([, differs]) => differs));
  say(`${duration_s.toFixed(1)} s heard. ${differ ? "Marked words differ." : "Both write the same words."}`);
  found.forEach(({ name, words, segments, seconds }, i) => {
    const article = answers.children[i];
    article.querySelector("h2").textContent = name;
    article.querySelector(".took").textContent = `in ${seconds.toFixed(2)} s`;
    article.querySelector(".text").replaceChildren(...(words.length ? spans(words) : [nothing()]));
    const list = article.querySelector(".segments");
    list.replaceChildren(...segments.map(place));
    list.hidden = segments.length < 2;
  });
  answers.hidden = false;
}

// Thai, Lao, Burmese, Khmer, kana and Han, as in text.py: a blank would stand between letters of one word.
const UNSPACED = /[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u30ff\u31f0-\u31ff\u3400-\u9fff\uf900-\ufaff]$/;

function spans(words) {
  return words.flatMap(([word, differs]) => {
    const gap = UNSPACED.test(word) ? "" : " ";
    if (!differs) return [word + gap];
    const mark = document.createElement("mark");
    mark.textContent = word;
    return [mark, gap];
  });
}

// A segment of a long recording: its time and text; the recording is played from there.
function place([start_s, text]) {
  const item = document.createElement("li");
  const button = document.createElement("button");
  button.type = "button";
  const time = document.createElement("time");
  time.textContent = `${Math.floor(start_s / 60)}:${String(Math.floor(start_s % 60)).padStart(2, "0")}`;
  button.title = `Play from ${time.textContent}`;
  button.append(time, ` ${text}`);
  button.addEventListener("click", () => {
    player.currentTime = start_s;
    player.play();
  });
  item.append(button);
  return item;
}

function nothing() {
  const span = document.createElement("span");
  span.className = "none";
  span.textContent = "no words";
  return span;
}

async function start() {
  complain("");
  if (!navigator.mediaDevices) {
    complain("The browser lends its microphone to https and to localhost only; choose a file instead.");
    return;
  }
  record.disabled = true; // until the person has answered the browser's question
  let stream;
  try {
    stream = await navigator.mediaDevices.getUserMedia({ audio: { channelCount: 1 } });
  } catch (error) {
    complain(`The microphone was not given (${error.message}); allow it beside the address, or choose a file.`);
    return;
  } finally {
    record.disabled = false;
  }
  const context = new AudioContext();
  await context.audioWorklet.addModule("recorder.js");
  const node = new AudioWorkletNode(context, "recorder", { numberOfOutputs: 0 });
  const blocks = [];
  const most_s = Math.min(limits.max_duration_s, (limits.max_bytes - 44) / 2 / context.sampleRate);
  let samples = 0;
  node.port.onmessage = ({ data }) => {
    blocks.push(data);
    samples += data.length;
    const seconds = samples / context.sampleRate;
    by("level").value = Math.min(1, 4 * Math.sqrt(data.reduce((sum, x) => sum + x * x, 0) / data.length));
    say(`Recording: ${seconds.toFixed(0)} s`);
    if (seconds >= most_s - 1) stop();
  };
  context.createMediaStreamSource(stream).connect(node);
  recording = { stream, context, node, blocks };
  press(true);
}

function press(is) {
  record.setAttribute("aria-pressed", String(is));
  by("record-label").textContent = is ? "Stop" : "Record";
  by("level").hidden = !is;
  if (is) player.hidden = true;
  answers.classList.toggle("waiting", is);
  choose.disabled = is;
}

async function stop(keep = true) {
  if (!recording) return;
  const { stream, context, node, blocks } = recording;
  recording = null;
  node.port.onmessage = null;
  stream.getTracks().forEach((track) => track.stop());
  const rate = context.sampleRate;
  await context.close();
  press(false);
  say("");
  if (keep) await send(wav(blocks, rate));
}

// 16-bit mono: browsers record webm otherwise, which the server does not read.
function wav(blocks, rate) {
  const count = blocks.reduce((sum, block) => sum + block.length, 0);
  const view = new DataView(new ArrayBuffer(44 + 2 * count));
  const text = (at, chars) => [...chars].forEach((char, i) => view.setUint8(at + i, char.charCodeAt(0)));
  text(0, "RIFF"); view.setUint32(4, 36 + 2 * count, true); text(8, "WAVEfmt ");
  view.setUint32(16, 16, true); view.setUint16(20, 1, true); view.setUint16(22, 1, true);
  view.setUint32(24, rate, true); view.setUint32(28, 2 * rate, true);
  view.setUint16(32, 2, true); view.setUint16(34, 16, true);
  text(36, "data"); view.setUint32(40, 2 * count, true);
  let at = 44;
  for (const block of blocks) for (const x of block) {
    view.setInt16(at, 32767 * Math.max(-1, Math.min(1, x)), true);
    at += 2;
  }
  return new Blob([view], { type: "audio/wav" });
}

record.addEventListener("click", () => (recording ? stop() : start()));
choose.addEventListener("click", () => file.click());
file.addEventListener("change", () => {
  if (file.files.length) send(file.files[0]);
  file.value = "";
});

document.addEventListener("keydown", (event) => {
  if (busy || event.repeat || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "r") record.click();
  else if (event.key === "u" && !recording) choose.click();
  else if (event.key === "Escape") stop(false);
});

const input = by("input");
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  input.classList.add("over");
});
document.addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) input.classList.remove("over");
});
document.addEventListener("drop", (event) => {
  event.preventDefault();
  input.classList.remove("over");
  if (!busy && !recording && event.dataTransfer.files.length) send(event.dataTransfer.files[0]);
});

about().catch((error) => complain(`The server gave no answer (${error.message}); is it still running?`));
