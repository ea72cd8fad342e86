// Axes: round numbers, round durations, and the frame of a chart.
const axes = (() => {
  const HEIGHT = 250;
  const MARGIN = { right: 14, bottom: 30, left: 48 };

  function round(most, about = 4) {
    const raw = most / about || 1;
    const power = 10 ** Math.floor(Math.log10(raw));
    const step = [1, 2, 2.5, 5, 10].map((n) => n * power).find((n) => n >= raw && (n >= 1 || most < 1)) || 1;
    const whole = Math.max(step, most <= 4 ? 1 : step);
    const ticks = [];
    for (let value = 0; value <= most + whole * 0.999; value += whole) ticks.push(value);
    return ticks;
  }

  const STEPS = [
    0.001, 0.01, 0.1, 1, 10, 60, 600, 3600, 6 * 3600, 86400, 7 * 86400, 30 * 86400, 365 * 86400,
    10 * 365 * 86400,
  ];
  const NAMES = ["1 ms", "10 ms", "0.1 s", "1 s", "10 s", "1 min", "10 min", "1 h", "6 h", "1 day", "1 week", "30 days", "1 year", "10 years"];
  const decades = (low, high) =>
    STEPS.map((value, i) => [value, NAMES[i]]).filter(([value]) => value >= low && value <= high);

  const UNITS = [1, 60, 3600, 86400, 365.25 * 86400];
  function durations(most) {
    const unit = [...UNITS].reverse().find((size) => size <= most / 2) || 1;
    return round(most / unit, 5).map((n) => n * unit);
  }

  // top: room for what stands above the plot.
  function frame(box, label, top = 14) {
    const width = Math.max(280, box.clientWidth || 560);
    const inner = { width: width - MARGIN.left - MARGIN.right, height: HEIGHT - top - MARGIN.bottom };
    const plot = dom.svg("g", { transform: `translate(${MARGIN.left},${top})` });
    const canvas = dom.svg("svg", { width, height: HEIGHT, viewBox: `0 0 ${width} ${HEIGHT}`, role: "group", "aria-label": label }, plot);
    return { canvas, plot, inner };
  }

  // Lines across, with their values; returns the height of a value.
  function upright(plot, inner, most, about) {
    const ticks = round(Math.max(most, 1), about);
    const top = ticks[ticks.length - 1];
    const y = (value) => inner.height - (value / top) * inner.height;
    for (const tick of ticks) {
      plot.append(
        dom.svg("line", { x1: 0, x2: inner.width, y1: y(tick), y2: y(tick), class: tick ? "grid" : "base" }),
        dom.svg("text", { x: -8, y: y(tick) + 4, class: "tick end", text: format.short(tick) }));
    }
    return y;
  }

  // Texts below, so many as have room. places: [x, text].
  function below(plot, inner, places) {
    let free = -Infinity;
    for (const [x, text] of places) {
      const half = layout.width(text, "11px system-ui, sans-serif") / 2;
      const middle = Math.min(Math.max(x, half - 40), inner.width - half + 12);
      if (middle - half < free) continue;
      free = middle + half + 14;
      plot.append(
        dom.svg("line", { x1: x, x2: x, y1: inner.height, y2: inner.height + 4, class: "base" }),
        dom.svg("text", { x: middle, y: inner.height + 18, class: "tick", text }));
    }
  }

  return { frame, upright, below, decades, durations };
})();
