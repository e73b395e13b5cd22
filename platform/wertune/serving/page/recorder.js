// Runs beside the page's own thread: hands every block of the microphone's samples over.
class Recorder extends AudioWorkletProcessor {
  process(inputs) {
    const channels = inputs[0];
    if (channels.length) this.port.postMessage(channels[0].slice());
    return true;
  }
}

registerProcessor("recorder", Recorder);
