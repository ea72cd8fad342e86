// Where the map's nodes and edges are: in layers, by dagre; or where a drawing has them.
const layout = (() => {
  const LOOP = 34;
  const pen = document.createElement("canvas").getContext("2d");
  function width(text, font) {
    pen.font = font;
    return pen.measureText(text).width;
  }

  // nodes: {id, w, h}; edges: {from, to, count, labelWidth}; ids as of the nodes.
  // Returns {width, height, nodes: Map id -> {x, y, w, h}, edges: [{points, label}]}; x, y: middle.
  function layered(nodes, edges, direction) {
    const graph = new dagre.graphlib.Graph({ multigraph: true });
    const down = direction === "TB";
    graph.setGraph({
      rankdir: direction, nodesep: down ? 34 : 26, ranksep: down ? 34 : 26, edgesep: 18,
      marginx: 24, marginy: 24,
    });
    graph.setDefaultEdgeLabel(() => ({}));
    const greatest = Math.max(1, ...edges.map((edge) => edge.count));
    // A move from a state to itself goes over the top of its node, which is taller for it.
    const looped = new Set(edges.filter((edge) => edge.from === edge.to).map((edge) => edge.from));
    for (const node of nodes) {
      graph.setNode(node.id, { width: node.w, height: node.h + (looped.has(node.id) ? LOOP : 0) });
    }
    edges.forEach((edge, number) => {
      if (edge.from === edge.to) return;
      graph.setEdge(edge.from, edge.to, {
        width: edge.labelWidth + 8, height: 16, labelpos: "c",
        weight: 1 + Math.round((20 * edge.count) / greatest), number,
      }, String(number));
    });
    dagre.layout(graph);
    const placed = new Map();
    for (const id of graph.nodes()) {
      const { x, y, width: w, height: h } = graph.node(id);
      const extra = looped.has(id) ? LOOP : 0;
      placed.set(id, { x, y: y + extra / 2, w, h: h - extra });
    }
    const lines = edges.map((edge) => (edge.from === edge.to ? loop(placed.get(edge.from)) : null));
    for (const id of graph.edges()) {
      const { points, x, y, number } = graph.edge(id);
      const inner = points.slice(1, -1);
      const [from, to] = [placed.get(id.v), placed.get(id.w)];
      const ends = [border(from, inner[0] || to), border(to, inner[inner.length - 1] || from)];
      const line = [ends[0], ...inner, ends[1]];
      lines[number] = { points: line, label: onCurve(line, { x, y }) };
    }
    const { width: w, height: h } = graph.graph();
    return { width: w, height: h, nodes: placed, edges: lines };
  }

  // A drawing's own places: id -> [x, y, w, h] with the upper left corner.
  function drawn(nodes, edges, positions) {
    const placed = new Map();
    let right = 0;
    let bottom = 0;
    const missing = [];
    for (const node of nodes) {
      const place = positions[node.id];
      if (!place) {
        missing.push(node);
        continue;
      }
      const [x, y, w, h] = place;
      placed.set(node.id, { x: x + w / 2, y: y + h / 2, w, h });
      right = Math.max(right, x + w);
      bottom = Math.max(bottom, y + h);
    }
    let x = 24;
    for (const node of missing) {
      placed.set(node.id, { x: x + node.w / 2, y: bottom + 70, w: node.w, h: node.h });
      x += node.w + 30;
    }
    const lines = edges.map((edge) => between(placed.get(edge.from), placed.get(edge.to)));
    return {
      width: Math.max(right, x) + 24, height: bottom + (missing.length ? 120 : 24),
      nodes: placed, edges: lines,
    };
  }
  function border(box, toward) {
    const dx = toward.x - box.x;
    const dy = toward.y - box.y;
    const scale = Math.max(Math.abs(dx) / (box.w / 2), Math.abs(dy) / (box.h / 2)) || 1;
    return { x: box.x + dx / scale, y: box.y + dy / scale };
  }
  // Of a curve with these points, where its i-th piece ends.
  const joint = (points, i) =>
    i === points.length - 2
      ? points[i + 1]
      : { x: (points[i].x + points[i + 1].x) / 2, y: (points[i].y + points[i + 1].y) / 2 };
  // The place on the curve that is nearest to where the label was to be.
  function onCurve(points, { x, y }) {
    let best = 1;
    const far = (point) => Math.hypot(point.x - x, point.y - y);
    for (let i = 1; i < points.length - 1; i += 1) if (far(points[i]) < far(points[best])) best = i;
    if (points.length < 3) return { x, y };
    const before = best === 1 ? points[0] : joint(points, best - 1);
    const after = joint(points, best);
    const control = points[best];
    return { x: (before.x + 2 * control.x + after.x) / 4, y: (before.y + 2 * control.y + after.y) / 4 };
  }

  function loop({ x, y, w, h }) {
    const top = y - h / 2;
    const right = x + w / 2 - 12;
    const left = Math.max(right - 44, x - w / 2 + 12);
    return {
      points: [
        { x: left, y: top }, { x: left - 3, y: top - 20 }, { x: (left + right) / 2, y: top - 23 },
        { x: right + 3, y: top - 20 }, { x: right, y: top },
      ],
      label: { x: (left + right) / 2, y: top - 23 },
    };
  }
  function between(from, to) {
    if (from === to) return loop(from);
    // Bent a little to one side, so that the way back is another line.
    const mid = { x: (from.x + to.x) / 2, y: (from.y + to.y) / 2 };
    const far = Math.hypot(to.x - from.x, to.y - from.y) || 1;
    const bend = Math.min(40, far / 8);
    const middle = { x: mid.x - ((to.y - from.y) / far) * bend, y: mid.y + ((to.x - from.x) / far) * bend };
    const points = [border(from, middle), middle, border(to, middle)];
    return { points, label: onCurve(points, middle) };
  }

  // Which edges are shown: the most frequent, and those without which a state would hang in
  // the air: for each state the most frequent edge into it, and a way to it from the start.
  function kept(edges, share) {
    const order = [...edges].sort((a, b) => b.count - a.count);
    const shown = new Set(order.slice(0, Math.round(share * order.length)));
    const entered = new Set();
    for (const edge of order) {
      if (edge.from === edge.to || entered.has(edge.to)) continue;
      entered.add(edge.to);
      shown.add(edge);
    }
    const reached = new Set(["start"]);
    for (let grown = true; grown; ) {
      grown = false;
      for (const edge of order) {
        if (!reached.has(edge.from) || reached.has(edge.to)) continue;
        reached.add(edge.to);
        shown.add(edge);
        grown = true;
        break;
      }
    }
    return edges.filter((edge) => shown.has(edge));
  }

  return { width, layered, drawn, kept, joint };
})();
