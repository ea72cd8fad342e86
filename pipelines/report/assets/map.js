// The process map: states shaded by the time spent in them, moves as wide as they are frequent.
const processMap = (() => {
  const MOST_NODES = 60;
  const MOST_EDGES = 250;
  const FONT = "500 13px system-ui, sans-serif";
  const SMALL = "11px system-ui, sans-serif";
  const view = { label: "count", share: null, zoom: null };
  const cached = { key: "", placed: null };
  let current = null;

  const LABELS = {
    count: (one) => format.short(one.count),
    mean: (one) => format.duration(one.mean),
    p90: (one) => format.duration(one.p90),
    max: (one) => format.duration(one.max),
  };

  function graphOf(filter) {
    const times = new Map(model.states(filter).map((one) => [one.state, one]));
    const all = model.edges(filter);
    const into = new Map();
    for (const edge of all) {
      into.set(edge.to, (into.get(edge.to) || 0) + edge.count);
      if (!edge.isStart && !into.has(edge.from)) into.set(edge.from, 0);
    }
    for (const [state, one] of times) into.set(state, Math.max(into.get(state) || 0, one.visits));
    const ranked = [...into].sort((a, b) => b[1] - a[1] || a[0] - b[0]);
    const shown = new Set(ranked.slice(0, MOST_NODES).map(([state]) => state));
    const nodes = ranked.slice(0, MOST_NODES).map(([state, count]) => {
      const time = times.get(state) || { mean: null, max: null, p90: null, p50: null, total: 0 };
      return { ...time, id: String(state), state, name: model.state(state), count };
    });
    const edges = [];
    for (const edge of all) {
      if (!shown.has(edge.to) || (!edge.isStart && !shown.has(edge.from))) continue;
      edges.push({ ...edge, from: edge.isStart ? "start" : String(edge.from), to: String(edge.to) });
    }
    for (const end of model.ends(filter)) {
      if (!shown.has(end.state)) continue;
      edges.push({ from: String(end.state), to: "end", count: end.count, mean: null, max: null, p90: null, isEnd: true });
    }
    const moves = all.reduce((sum, edge) => sum + edge.count, 0);
    return { nodes, edges, moves, hidden: ranked.length - nodes.length, single: all.every((e) => e.rows === 1) };
  }

  function draw(filter) {
    current = filter;
    const graph = graphOf(filter);
    const empty = !graph.edges.length;
    dom.at("map").hidden = empty;
    dom.at("map-tools").hidden = empty;
    dom.at("map-legend").hidden = empty;
    dom.at("map-table").hidden = empty;
    if (empty) {
      dom.at("map-say").textContent = "No case moved in what is chosen.";
      dom.under("map-table", () => dom.table("Moves between states", ["From", "To"], []));
      return;
    }
    if (view.share === null) view.share = usual(graph.edges);
    if (view.label === "p90" && !graph.single) view.label = "mean";
    tools(graph);
    say(graph, filter);
    picture(graph);
    dom.under("map-table", () => asTable(filter));
  }

  // So many edges as make up 95 % of all moves.
  function usual(edges) {
    const counts = edges.map((edge) => edge.count).sort((a, b) => b - a);
    const all = counts.reduce((sum, count) => sum + count, 0);
    let seen = 0;
    const enough = counts.findIndex((count) => (seen += count) >= 0.95 * all);
    return Math.min(1, (enough + 1) / counts.length);
  }

  function tools(graph) {
    const place = dom.at("map-tools");
    const reason = "Quantiles do not add up over windows, processes and versions; choose one of each, and measure with --window global for all time";
    if (!place.firstChild || place.dataset.single !== String(graph.single)) {
      place.dataset.single = String(graph.single);
      const slider = dom.el("input", {
        type: "range", id: "edge-slider", min: "0", max: "100", step: "1", "aria-describedby": "edge-text",
        oninput: () => {
          view.share = Number(slider.value) / 100;
          draw(current);
        },
      });
      dom.put(
        place,
        dom.choice("map-label", "Show", [
          ["count", "Frequency"], ["mean", "Mean time"],
          ["p90", "p90", graph.single ? null : reason], ["max", "Longest"],
        ], view.label, (value) => {
          view.label = value;
          draw(current);
        }),
        dom.el("label", { class: "slider" }, dom.el("span", { text: "Rare moves" }), slider,
          dom.el("output", { id: "edge-text" })),
        dom.el("div", { class: "zoom", role: "group", "aria-label": "Size of the map" },
          ...[["−", "Smaller", 0.8], ["Fit", "Fit the page", 0], ["+", "Larger", 1.25]].map(
            ([text, label, by]) => dom.el("button", {
              type: "button", text, "aria-label": label, onclick: () => zoom(by),
            }))),
        graph.single ? null : dom.el("p", { class: "note", text: `p90: ${reason.toLowerCase()}.` }),
      );
    }
    dom.at("edge-slider").value = String(Math.round(view.share * 100));
  }

  function zoom(by) {
    const picture = dom.at("map").querySelector("svg");
    const now = picture.getBoundingClientRect().width / Number(picture.dataset.width);
    view.zoom = by ? Math.min(3, Math.max(0.2, now * by)) : null;
    fit(picture);
  }
  function fit(picture) {
    const { width, height } = picture.dataset;
    const box = dom.at("map");
    const room = box.clientWidth || 900;
    // All of it in sight, unless its texts would get too small for that.
    const tall = Math.max(0.7, (parseFloat(getComputedStyle(box).maxHeight) || Infinity) / height);
    const scale = view.zoom || Math.min(1.1, tall, Math.max(room / width, 0.5));
    picture.setAttribute("width", String(Math.round(width * scale)));
    picture.setAttribute("height", String(Math.round(height * scale)));
  }

  function say(graph, filter) {
    const ways = graph.edges.filter((edge) => !edge.isEnd && edge.from !== "start");
    const named = ways.filter((edge) => [edge.from, edge.to].every((state) => model.named("states", Number(state))));
    const first = named[0] || ways[0];
    const parts = [];
    if (first) {
      const [from, to] = [first.from, first.to].map((state) => format.name(model.state(Number(state))));
      parts.push(`The most frequent move is ${from} → ${to}, ${format.share(first.count, graph.moves)} of all.`);
    }
    const loops = named.filter((edge) => edge.from === edge.to);
    if (loops.length) parts.push(`${format.counted(loops.length, "state")} ${loops.length > 1 ? "have moves to themselves" : "has a move to itself"}.`);
    if (!model.data.ends.count.length) {
      parts.push("No end state is known, so no end is drawn: name them with --end_states when transitions are made.");
    }
    if (graph.hidden) {
      parts.push(`The map shows the ${MOST_NODES} most visited states; ${format.count(graph.hidden)} more are not drawn.`);
    }
    if (filter.version !== null && model.data.ends.count.length && !model.data.ends.version) {
      parts.push("Ends are those of all versions.");
    }
    dom.at("map-say").textContent = parts.join(" ");
  }

  function picture(graph) {
    let edges = layout.kept(graph.edges, view.share);
    const drawnEdges = edges.length;
    if (edges.length > MOST_EDGES) edges = layout.kept(graph.edges, MOST_EDGES / graph.edges.length / 1.5);
    const shownMoves = edges.reduce((sum, edge) => sum + (edge.isEnd ? 0 : edge.count), 0);
    dom.at("edge-text").textContent =
      `${format.count(edges.length)} of ${format.count(graph.edges.length)} moves, ${format.share(shownMoves, graph.moves)} of what happened` +
      (edges.length < drawnEdges ? " (as many as can be drawn)" : "");

    const show = LABELS[view.label];
    const nodes = graph.nodes.map((node) => {
      const text = clip(node.name, 200);
      const w = Math.max(96, layout.width(text, FONT) + 32);
      return { ...node, text, w: Math.ceil(w / 8) * 8, h: 48 };
    });
    if (edges.some((edge) => edge.from === "start")) nodes.unshift({ id: "start", name: "Start", w: 22, h: 22 });
    if (edges.some((edge) => edge.isEnd)) nodes.push({ id: "end", name: "End", w: 24, h: 24 });
    for (const edge of edges) {
      edge.text = edge.from === "start" || edge.isEnd ? format.short(edge.count) : show(edge);
      edge.labelWidth = 8 * Math.ceil((layout.width(edge.text, SMALL) + 6) / 8);
    }
    const placed = place(nodes, edges);
    const box = dom.at("map");
    const marks = [];
    const lines = dom.svg("g", { class: "edges" });
    const texts = dom.svg("g", { class: "labels" });
    const boxes = dom.svg("g", { class: "nodes" });
    const greatest = Math.max(1, ...edges.map((edge) => edge.count));
    const heat = scale(edges.map((edge) => edge.mean));
    const nodeHeat = scale(nodes.map((node) => node.mean));
    const drawn = new Map();
    edges.forEach((edge, number) => {
      const mark = edgeMark(edge, placed.edges[number], 1.2 + 6.5 * Math.sqrt(edge.count / greatest), heat(edge.mean));
      drawn.set(edge, mark);
      lines.append(mark.line);
      texts.append(mark.label);
    });
    for (const node of nodes) {
      const own = edges.filter((edge) => edge.from === node.id || edge.to === node.id);
      const focus = (on) => {
        box.classList.toggle("focused", on);
        for (const edge of own) {
          drawn.get(edge).line.classList.toggle("near", on);
          drawn.get(edge).label.classList.toggle("near", on);
        }
      };
      const mark = nodeMark(node, placed.nodes.get(node.id), nodeHeat(node.mean), show, focus, graph.moves);
      boxes.append(mark);
      marks.push(mark, ...edges.filter((edge) => edge.from === node.id).map((edge) => drawn.get(edge).line));
    }
    const canvas = dom.svg("svg", {
      viewBox: `0 0 ${Math.ceil(placed.width)} ${Math.ceil(placed.height)}`, role: "group",
      "aria-label": "Process map. Arrow keys go from state to state, and along the moves from each.",
      "data-width": Math.ceil(placed.width), "data-height": Math.ceil(placed.height),
    }, lines, texts, boxes);
    const { scrollLeft, scrollTop } = box;
    const fresh = !box.querySelector("svg");
    dom.put(box, canvas);
    fit(canvas);
    dom.rove(box, marks);
    box.scrollLeft = scrollLeft;
    box.scrollTop = scrollTop;
    const start = placed.nodes.get("start");
    if (fresh && start) {
      // A narrow page begins where cases do.
      box.scrollLeft = (start.x * canvas.getBoundingClientRect().width) / placed.width - box.clientWidth / 2;
    }
    legend(edges, nodes);
  }

  // The same states and edges stand where they stood.
  function place(nodes, edges) {
    const room = dom.at("map").clientWidth || 900;
    const key = JSON.stringify([
      room > 700, nodes.map((node) => [node.id, node.w]), edges.map((edge) => [edge.from, edge.to, edge.labelWidth]),
    ]);
    if (key === cached.key) return cached.placed;
    const { positions } = model.data;
    let placed;
    if (nodes.some((node) => positions[node.id])) placed = layout.drawn(nodes, edges, positions);
    else {
      placed = layout.layered(nodes, edges, "LR");
      // Beside each other if that can be read without scrolling, else below each other.
      if (placed.width > 1.25 * room) placed = layout.layered(nodes, edges, "TB");
    }
    cached.key = key;
    cached.placed = placed;
    return placed;
  }

  // Of durations, which differ by orders of magnitude, to 0..1.
  function scale(values) {
    const logs = values.filter((value) => value > 0).map(Math.log);
    const low = Math.min(...logs);
    const high = Math.max(...logs);
    return (value) => {
      if (value === null || value === undefined) return null;
      if (!(value > 0)) return 0;
      return high > low ? (Math.log(value) - low) / (high - low) : 0.5;
    };
  }

  // Smooth, from the first point to the last, with those between as control points; layout.onCurve
  // knows where it goes.
  function curve(points) {
    let path = `M${at(points[0])}`;
    for (let i = 1; i < points.length - 1; i += 1) path += `Q${at(points[i])} ${at(layout.joint(points, i))}`;
    return points.length === 2 ? `${path}L${at(points[1])}` : path;
  }
  const at = ({ x, y }) => `${x.toFixed(1)},${y.toFixed(1)}`;

  function edgeMark(edge, { points, label }, width, heat) {
    const tip = points[points.length - 1];
    const before = points[points.length - 2];
    const far = Math.hypot(tip.x - before.x, tip.y - before.y) || 1;
    const [dx, dy] = [(tip.x - before.x) / far, (tip.y - before.y) / far];
    const size = Math.min(5 + width * 0.9, Math.max(6, far));
    const foot = { x: tip.x - dx * size, y: tip.y - dy * size };
    const half = size * 0.52;
    const head = [
      tip, { x: foot.x - dy * half, y: foot.y + dx * half }, { x: foot.x + dy * half, y: foot.y - dx * half },
    ];
    const path = curve([...points.slice(0, -1), { x: foot.x + dx, y: foot.y + dy }]);
    const from = edge.from === "start" ? "Start" : model.state(Number(edge.from));
    const to = edge.isEnd ? "End" : model.state(Number(edge.to));
    const lines = [`${format.name(from)} → ${format.name(to)}`, [edge.isEnd ? "cases" : "moves", format.count(edge.count)]];
    if (edge.mean !== null) {
      lines.push(["mean", format.duration(edge.mean)]);
      if (edge.p50 !== null) lines.push(["median", format.duration(edge.p50)], ["p90", format.duration(edge.p90)]);
      lines.push(["shortest", format.duration(edge.min)], ["longest", format.duration(edge.max)]);
    }
    const vars = heat === null ? {} : { "--t": `${Math.round(8 + 92 * heat)}%` };
    const text = dom.svg("text", { x: label.x, y: label.y + 4, text: edge.text, class: "label" });
    const line = dom.svg("g", { class: `edge${heat === null ? " plain" : ""}`, vars },
      dom.svg("path", { d: path, class: "hit" }),
      dom.svg("path", { d: path, class: "line", "stroke-width": width.toFixed(1) }),
      dom.svg("path", { d: `M${head.map(at).join("L")}Z`, class: "head" }));
    const near = (on) => {
      line.classList.toggle("near", on);
      text.classList.toggle("near", on);
    };
    dom.mark(line, lines, { on: () => near(true), off: () => near(false) });
    return { line, label: text };
  }

  function nodeMark(node, { x, y, w, h }, heat, show, focus, moves) {
    if (node.id === "start" || node.id === "end") {
      const mark = dom.svg("g", { class: `node ${node.id}` },
        dom.svg("circle", { cx: x, cy: y, r: 10 }),
        node.id === "end" && dom.svg("circle", { cx: x, cy: y, r: 5.5, class: "inner" }));
      return dom.mark(mark, [node.name], { on: () => focus(true), off: () => focus(false) });
    }
    const lines = [node.name, ["entered or left", format.count(node.count)]];
    if (node.mean !== null) {
      lines.push(["mean stay", format.duration(node.mean)]);
      if (node.p50 !== null) lines.push(["median", format.duration(node.p50)], ["p90", format.duration(node.p90)]);
      lines.push(["longest", format.duration(node.max)]);
    }
    const vars = heat === null ? {} : { "--t": `${Math.round(4 + 56 * heat)}%` };
    const mark = dom.svg("g", { class: "node", vars },
      dom.svg("rect", { x: x - w / 2, y: y - h / 2, width: w, height: h, rx: 9 }),
      dom.svg("text", { x, y: y - 3, class: "name", text: node.text }),
      dom.svg("text", { x, y: y + 14, class: "value", text: show(node) }));
    return dom.mark(mark, lines, { on: () => focus(true), off: () => focus(false) });
  }

  function clip(text, width) {
    if (layout.width(text, FONT) <= width) return text;
    const letters = [...text];
    while (letters.length > 1 && layout.width(`${letters.join("")}…`, FONT) > width) letters.pop();
    return `${letters.join("")}…`;
  }

  function legend(edges, nodes) {
    const bounds = (values) => {
      const known = values.filter((value) => value > 0);
      return known.length ? [Math.min(...known), Math.max(...known)] : null;
    };
    const part = (label, range) => range && dom.el("span", { class: "key" },
      dom.el("span", { text: label }), dom.el("span", { text: format.duration(range[0]) }),
      dom.el("span", { class: "ramp" }), dom.el("span", { text: format.duration(range[1]) }));
    dom.put("map-legend",
      part("Mean stay in a state", bounds(nodes.map((node) => node.mean))),
      part("Mean time of a move", bounds(edges.map((edge) => edge.mean))),
      dom.el("span", { class: "key", text: "The wider a line, the more often it was gone." }));
  }

  function asTable(filter) {
    const rows = model.edges(filter).map((edge) => [
      edge.isStart ? "Start" : model.state(edge.from), model.state(edge.to), format.count(edge.count),
      format.duration(edge.mean), format.duration(edge.min), format.duration(edge.max),
    ]);
    return dom.table("Moves between states, the most frequent first",
      ["From", "To", "Moves", "Mean", "Shortest", "Longest"], rows);
  }

  function resize() {
    const picture = dom.at("map").querySelector("svg");
    if (picture) fit(picture);
  }

  return { draw, resize };
})();
