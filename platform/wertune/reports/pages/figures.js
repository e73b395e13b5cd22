(() => {
  const figures = JSON.parse(document.getElementById("figures").textContent);
  const colour = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  const narrow = matchMedia("(max-width: 600px)");

  function themed({ layout }) {
    const axis = { gridcolor: colour("--line"), zerolinecolor: colour("--line"), linecolor: colour("--line") };
    const title = value => value && { text: value, font: { size: 13, color: colour("--faint") } };
    const both = name => ({ ...axis, ...layout[name], title: title(layout[name]?.title), fixedrange: narrow.matches });
    return {
      height: 400, margin: { l: 60, r: 20, t: 40, b: 50 }, paper_bgcolor: "transparent", plot_bgcolor: "transparent",
      hovermode: "closest", legend: { orientation: "h", yref: "container", y: 1, yanchor: "top" }, ...layout,
      // Upright at the side: lying above, it hides the end of the legend; its own ground would be a grey box.
      modebar: { orientation: "v", bgcolor: "rgba(0,0,0,0)", color: colour("--faint"), activecolor: colour("--text") },
      font: { family: "system-ui, sans-serif", size: 13, color: colour("--text") },
      xaxis: both("xaxis"), yaxis: both("yaxis"),
      annotations: narrow.matches ? [] : layout.annotations,  // they would run into each other; a touch tells the same
    };
  }

  function section({ title, note }, index) {
    const element = document.createElement("section"), heading = document.createElement("h2");
    const words = document.createElement("p"), plot = document.createElement("div"), link = document.createElement("a");
    element.id = `figure-${index}`;
    heading.textContent = link.textContent = title;
    link.href = `#figure-${index}`;
    words.textContent = note;
    words.className = "faint small";
    plot.className = "plot";
    element.append(heading, words, plot);
    document.getElementById("plots").append(element);
    document.getElementById("contents").append(link);
    return plot;
  }

  const plots = figures.map(section);
  const settings = { responsive: true, displaylogo: false, scrollZoom: false };
  const draw = () => plots.forEach((plot, index) =>
    Plotly.react(plot, figures[index].data, themed(figures[index]), settings));
  addEventListener("themechange", draw);
  for (const query of [matchMedia("(prefers-color-scheme: dark)"), narrow]) query.addEventListener("change", draw);
  draw();
})();
