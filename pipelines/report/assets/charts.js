// Cycle times as a histogram, and what came in and went out as lines.
const charts = (() => {
  const view = { scale: "log" };
  const BARS = 42;

  function cycle(filter) {
    const { cases, has } = model.data;
    const found = model.cycles(filter);
    const box = dom.at("cycle");
    const tools = dom.at("cycle-tools");
    const nothing = !found.count;
    box.hidden = tools.hidden = dom.at("cycle-table").hidden = nothing;
    const say = dom.at("cycle-say");
    if (nothing) {
      const sums = model.totals(filter);
      if (sums.completed && sums.p50 !== null && sums.p50 !== undefined) {
        say.textContent = `Half of the cases took less than ${format.duration(sums.p50)}, nine of ten less than ${format.duration(sums.p90)}. There is no table of cases here to draw more from.`;
      } else if (!has.cases) {
        say.textContent = "There is no table of cases here, so their times can't be drawn: report on a folder that has one beside the tables of analytics.";
      } else if (!cases.count) {
        say.textContent = "There is no case.";
      } else if (!cases.complete) {
        say.textContent = `No end state is known: none of ${format.counted(cases.count, "case")} counts as complete, so nobody can say how long one takes. Name the states that end a case with --end_states (if some were named, none of them occurs), or give --complete_log if the log holds whole cases.`;
      } else say.textContent = "No case was completed in what is chosen.";
      return;
    }
    say.textContent = `Half of ${format.counted(found.count, "completed case")} took less than ${format.duration(found.p50)}, nine of ten less than ${format.duration(found.p90)}, and one in a hundred more than ${format.duration(found.p99)}.`;
    dom.put(tools, dom.choice("cycle-scale", "Scale", [["log", "Logarithmic"], ["linear", "Linear"]], view.scale, (value) => {
      view.scale = value;
      cycle(filter);
    }));
    const bars = view.scale === "log" ? logarithmic(found) : linear(found);
    histogram(box, bars, found);
    dom.under("cycle-table", () => dom.table("Completed cases by cycle time", ["From", "To", "Cases"],
      bars.list.map((bar) => [format.duration(bar.low), bar.high === Infinity ? "–" : format.duration(bar.high), format.count(bar.count)])));
  }

  function logarithmic({ bins }) {
    const known = bins.filter((bin) => bin.seconds > 0);
    const zero = bins.filter((bin) => bin.seconds <= 0).reduce((sum, bin) => sum + bin.count, 0);
    if (!known.length) return { list: [{ low: 0, high: 0, count: zero }], x: () => 0.5, ticks: [] };
    let low = Math.log(known[0].seconds) - 0.02;
    let high = Math.log(known[known.length - 1].seconds) + 0.02;
    if (high - low < 1) [low, high] = [(low + high) / 2 - 0.5, (low + high) / 2 + 0.5];
    const list = Array.from({ length: BARS }, (_, i) => ({
      low: Math.exp(low + ((high - low) * i) / BARS), high: Math.exp(low + ((high - low) * (i + 1)) / BARS), count: 0,
    }));
    for (const bin of known) {
      list[Math.min(BARS - 1, Math.floor(((Math.log(bin.seconds) - low) / (high - low)) * BARS))].count += bin.count;
    }
    list[0].count += zero;
    if (zero) list[0].low = 0;
    const x = (seconds) => (seconds <= 0 ? 0 : (Math.log(seconds) - low) / (high - low));
    return { list, x, ticks: axes.decades(Math.exp(low), Math.exp(high)) };
  }

  // Up to the 99th percentile, which a few cases would else press into a corner; they are the
  // last bar.
  function linear({ bins, p99 }) {
    const ticks = axes.durations(Math.max(p99, 0.001));
    const most = ticks[ticks.length - 1];
    const list = Array.from({ length: BARS }, (_, i) => ({
      low: (most * i) / BARS, high: (most * (i + 1)) / BARS, count: 0,
    }));
    let above = 0;
    for (const bin of bins) {
      if (bin.seconds >= most) above += bin.count;
      else list[Math.floor((bin.seconds / most) * BARS)].count += bin.count;
    }
    if (above) list.push({ low: most, high: Infinity, count: above });
    const width = most * (list.length / BARS);
    return { list, x: (seconds) => Math.min(1, seconds / width), ticks: ticks.map((tick) => [tick, format.duration(tick)]) };
  }

  function histogram(box, { list, x, ticks }, found) {
    const { canvas, plot, inner } = axes.frame(box, "Completed cases by cycle time", 52);
    const y = axes.upright(plot, inner, Math.max(...list.map((bar) => bar.count)));
    axes.below(plot, inner, ticks.map(([value, text]) => [x(value) * inner.width, text]));
    const wide = inner.width / list.length;
    const marks = list.map((bar, i) => {
      const high = inner.height - y(bar.count);
      const name = bar.high === Infinity ? `${format.duration(bar.low)} or more` : `${format.duration(bar.low)} – ${format.duration(bar.high)}`;
      const mark = dom.svg("g", { class: "bar" },
        dom.svg("rect", { x: i * wide, y: 0, width: wide, height: inner.height, class: "hit" }),
        dom.svg("rect", { x: i * wide + 0.75, y: y(bar.count), width: Math.max(1, wide - 1.5), height: high, rx: 2 }));
      return dom.mark(mark, [name, ["cases", format.count(bar.count)], ["share", format.share(bar.count, found.count)]]);
    });
    plot.append(...marks);
    const free = [-Infinity, -Infinity, -Infinity];
    const texts = [];
    [["p50", "median"], ["p90", "p90"], ["p99", "p99"]].forEach(([key, label]) => {
      const left = x(found[key]) * inner.width;
      const text = `${label} ${format.duration(found[key])}`;
      const half = layout.width(text, "11px system-ui, sans-serif");
      const toLeft = left + half + 8 > inner.width;
      const from = toLeft ? left - half - 5 : left + 5;
      const row = Math.max(0, free.findIndex((until) => until <= from));
      free[row] = from + half + 6;
      const y0 = -8 - 14 * row;
      plot.append(dom.svg("line", { x1: left, x2: left, y1: y0 - 8, y2: inner.height, class: "quantile" }));
      texts.push(dom.svg("text", { x: toLeft ? left - 5 : left + 5, y: y0, class: `tick ${toLeft ? "end" : "begin"} strong`, text }));
    });
    // Above the lines of all: one may pass behind the text of another.
    plot.append(...texts);
    dom.put(box, canvas);
    dom.rove(box, marks);
  }

  const LINES = [["started", "Started"], ["completed", "Completed"], ["active", "Open"]];

  function flow(filter) {
    const { data } = model;
    const { steps, fromCases, length } = model.flow(filter);
    const box = dom.at("flow");
    const say = dom.at("flow-say");
    const few = steps.length < 2;
    box.hidden = dom.at("flow-table").hidden = dom.at("flow-legend").hidden = few;
    const sums = model.totals(filter);
    if (few) {
      say.textContent = model.nothing ? "No case started." : data.periods.start.length > 1
        ? "One period is chosen; a line needs two."
        : `${format.counted(sums.started, "case")} started, ${format.count(sums.completed)} completed. There is one window over all time and no table of cases: measure with --window fixed:1d to see how that changed.`;
      return;
    }
    const peak = steps.reduce((best, step) => (step.active > best.active ? step : best));
    const step = length || data.periods.window;
    const parts = [];
    if (!fromCases) {
      parts.push(`${format.counted(sums.started, "case")} started and ${format.count(sums.completed)} were completed.`);
    }
    parts.push(`Of the moments shown, most cases were open on ${format.moment(peak.end, step, data.zone)}: ${format.count(peak.active)}.`);
    if (!data.cases.complete && !sums.completed) parts.push("No end state is known, so none is completed and all stay open.");
    const { count } = model.cycles(filter);
    if (count && !fromCases && sums.completed > count) {
      parts.push(`${format.counted(count, "case")} ${count > 1 ? "are" : "is"} complete: one that comes back after its end is completed again, and what is taken back stays counted.`);
    }
    if (fromCases) parts.push("Counted from the table of cases, over all time: there is one window only.");
    if (fromCases && filter.version !== null) parts.push("All versions.");
    say.textContent = parts.join(" ");
    lines(box, steps, step);
    dom.put("flow-legend", ...LINES.map(([key, label]) => dom.el("span", { class: `key ${key}` }, dom.el("i", {}), dom.el("span", { text: label }))));
    dom.under("flow-table", () => dom.table("Flow by period", ["From", "Started", "Completed", "Open at the end", "Transitions"],
      steps.map((one) => [format.moment(one.start, step, data.zone), ...[one.started, one.completed, one.active, one.transitions].map(format.count)])));
  }

  // Few enough points for a line that can be read: days of periods of hours, weeks of days.
  const MOST_POINTS = 90;
  const DAY = 86400000;
  function joined(steps, length) {
    if (steps.length <= MOST_POINTS || !length) return [steps, length];
    const wanted = [DAY / 4, DAY / 2, DAY, 2 * DAY, 7 * DAY, 14 * DAY, 28 * DAY, 84 * DAY, 364 * DAY, 3640 * DAY]
      .find((each) => each > length && each % length === 0 && (steps.length * length) / each <= MOST_POINTS);
    if (!wanted) return [steps, length];
    const found = [];
    let bucket = null;
    for (const step of steps) {
      // Weeks begin on Mondays; the epoch was a Thursday.
      const now = Math.floor((step.local - (wanted % (7 * DAY) ? 0 : 4 * DAY)) / wanted);
      const last = found[found.length - 1];
      if (now !== bucket) found.push({ ...step });
      else {
        for (const key of ["started", "completed", "transitions", "late"]) last[key] += step[key];
        last.active = step.active;
        last.end = step.end;
      }
      bucket = now;
    }
    return [found, wanted];
  }

  // Two plots over one time: what was open, and below it what came and went.
  function lines(box, all, own) {
    const [steps, length] = joined(all, own);
    const { zone } = model.data;
    const { canvas, plot, inner } = axes.frame(box, "Cases started, completed and open over time");
    const first = steps[0].start;
    const span = steps[steps.length - 1].end - first || 1;
    const x = (ms) => ((ms - first) / span) * inner.width;
    const GAP = 22;
    const high = (inner.height - GAP) * 0.52;
    const upper = dom.svg("g", {});
    const lower = dom.svg("g", { transform: `translate(0,${high + GAP})` });
    plot.append(upper, lower);
    const size = { width: inner.width, height: high };
    const rest = { width: inner.width, height: inner.height - GAP - high };
    const yOpen = axes.upright(upper, size, Math.max(...steps.map((one) => one.active)), 3);
    const yMoved = axes.upright(lower, rest, Math.max(...steps.map((one) => Math.max(one.started, one.completed))), 2);
    const ticks = Array.from({ length: 7 }, (_, i) => steps[Math.min(steps.length - 1, Math.round((i * (steps.length - 1)) / 6))].start);
    axes.below(plot, inner, [...new Set(ticks)].map((ms) => [x(ms), format.tick(ms, span, zone)]));
    const middle = (one) => x((one.start + one.end) / 2);
    // In between, where no window is, there was nothing at all.
    const runs = [];
    for (const one of steps) {
      const run = runs[runs.length - 1];
      if (run && one.start - run[run.length - 1].end <= 0.5 * length) run.push(one);
      else runs.push([one]);
    }
    const draw = (into, key, y) => runs.map((run) => {
      const points = run.map((one) => `${middle(one).toFixed(1)},${y(one[key]).toFixed(1)}`);
      into.append(dom.svg("path", { d: `M${points.join("L")}${points.length > 1 ? "" : "h2"}`, class: `series ${key}` }));
      return points;
    });
    runs.forEach((run) => {
      const points = run.map((one) => `${middle(one).toFixed(1)},${yOpen(one.active).toFixed(1)}`);
      upper.append(dom.svg("path", { class: "area", d: `M${middle(run[0]).toFixed(1)},${high}L${points.join("L")}L${middle(run[run.length - 1]).toFixed(1)},${high}Z` }));
    });
    draw(upper, "active", yOpen);
    draw(lower, "completed", yMoved);
    draw(lower, "started", yMoved);
    const cursor = dom.svg("line", { y1: 0, y2: inner.height, class: "cursor", visibility: "hidden" });
    plot.append(cursor);
    const marks = steps.map((one) => {
      const left = x(one.start);
      const mark = dom.svg("g", {}, dom.svg("rect", { x: left, y: 0, width: Math.max(1, x(one.end) - left), height: inner.height, class: "hit" }));
      return dom.mark(mark, [
        format.moment(one.start, length, zone),
        ...LINES.map(([key, label]) => [label.toLowerCase(), format.count(one[key])]),
      ], {
        on: () => {
          cursor.setAttribute("x1", middle(one));
          cursor.setAttribute("x2", middle(one));
          cursor.setAttribute("visibility", "visible");
        },
        off: () => cursor.setAttribute("visibility", "hidden"),
      });
    });
    plot.append(...marks);
    dom.put(box, canvas);
    dom.rove(box, marks);
  }

  return { cycle, flow };
})();
