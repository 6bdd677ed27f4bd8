"use strict";
(() => {
  // Plots name their colours; the page's theme has the values.
  const plots = JSON.parse(document.getElementById("plots").textContent);
  const paper = document.getElementById("paper");

  const painter = (element) => {
    const style = getComputedStyle(element);
    const paint = (value) => {
      if (typeof value === "string") return value.startsWith("var(--") ? style.getPropertyValue(value.slice(4, -1)).trim() : value;
      if (Array.isArray(value)) return value.map(paint);
      if (value && typeof value === "object") return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, paint(v)]));
      return value;
    };
    return paint;
  };

  const layoutOf = (plot, paint, box) => {
    const axis = (own) => ({
      gridcolor: paint("var(--grid)"), linecolor: paint("var(--line)"), zeroline: false, automargin: true,
      tickfont: { size: 11 }, ...own, title: { ...own?.title, font: { size: 12 }, standoff: 10 },
    });
    const legends = plot.data.filter((trace) => trace.showlegend !== false && trace.type !== "heatmap").length > 1;
    return {
      ...plot.layout,
      width: box.width,
      height: plot.layout.height || box.height,
      margin: { l: 56, r: 12, t: legends ? 34 : 12, b: 50, ...plot.layout.margin },
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      font: { color: paint("var(--muted)"), family: getComputedStyle(document.body).fontFamily, size: 12 },
      hoverlabel: { bgcolor: paint("var(--panel)"), bordercolor: paint("var(--line)"), font: { color: paint("var(--ink)"), size: 12 } },
      legend: { orientation: "h", x: 0, xanchor: "left", y: 1.01, yanchor: "bottom", font: { color: paint("var(--soft)"), size: 12 }, ...plot.layout.legend },
      showlegend: legends,
      xaxis: axis(plot.layout.xaxis), yaxis: axis(plot.layout.yaxis),
      ...(plot.layout.yaxis2 && { yaxis2: axis(plot.layout.yaxis2) }),
      shapes: paint(plot.layout.shapes ?? []), annotations: paint(plot.layout.annotations ?? []),
    };
  };

  const config = { displaylogo: false, displayModeBar: false, scrollZoom: false };
  const draw = (theme, width) => {
    const paint = painter(theme);
    for (const plot of plots) {
      const box = document.getElementById(plot.id);
      if (!box) continue;
      const size = { width: width || box.clientWidth, height: box.clientHeight };
      Plotly.react(box, paint(plot.data), layoutOf(plot, paint, size), config);
    }
  };

  if (window.Plotly && plots.length) {
    const screen = () => draw(document.documentElement);
    screen();
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", screen);
    let waiting = 0, before = innerWidth;
    addEventListener("resize", () => {
      if (innerWidth === before) return;  // a phone's address bar changes the height only
      before = innerWidth;
      clearTimeout(waiting);
      waiting = setTimeout(screen, 120);
    });
    // Paper is light and narrow whatever the screen.
    const printed = matchMedia("(max-width: 820px)").matches ? 620 : 320;
    addEventListener("beforeprint", () => draw(paper, printed));
    addEventListener("afterprint", screen);
    document.documentElement.dataset.plots = String(document.querySelectorAll(".canvas .main-svg").length > 0);
  }

  addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((part) => { part.open = true; }));

  // Tables sort by a click on a head: numbers downwards first, what does not exist always last.
  for (const table of document.querySelectorAll("table.sortable")) {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => head.firstElementChild.addEventListener("click", () => {
      const number = head.classList.contains("num");
      const now = head.getAttribute("aria-sort");
      const down = now ? now === "ascending" : number;
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const key = (row) => row.cells[column].dataset.sort;
      const rows = [...table.tBodies[0].rows].sort((a, b) => {
        const [x, y] = [key(a), key(b)];
        if (x === "" || y === "") return (x === "") - (y === "");
        const order = number ? Number(x) - Number(y) : x.localeCompare(y, undefined, { numeric: true });
        return down ? -order : order;
      });
      table.tBodies[0].append(...rows);
    }));
  }

  const box = document.getElementById("lightbox");
  for (const button of document.querySelectorAll(".zoom")) {
    button.addEventListener("click", () => {
      const image = button.querySelector("img");
      box.querySelector("img").src = image.src;
      box.querySelector("img").alt = image.alt;
      box.querySelector("p").textContent = image.alt;
      box.showModal();
    });
  }
  box.addEventListener("click", (event) => { if (event.target === box) box.close(); });
})();
