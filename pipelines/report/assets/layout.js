// Where the map's nodes and edges are: in layers, by dagre; or where a drawing has them.
const layout = (() => {
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
    for (const node of nodes) graph.setNode(node.id, { width: node.w, height: node.h });
    edges.forEach((edge, number) => {
      graph.setEdge(edge.from, edge.to, {
        width: edge.labelWidth + 8, height: 16, labelpos: "c",
        weight: 1 + Math.round((20 * edge.count) / greatest), number,
      }, String(number));
    });
    dagre.layout(graph);
    const placed = new Map();
    for (const id of graph.nodes()) {
      const { x, y, width: w, height: h } = graph.node(id);
      placed.set(id, { x, y, w, h });
    }
    const lines = new Array(edges.length);
    for (const id of graph.edges()) {
      const { points, x, y, number } = graph.edge(id);
      lines[number] = { points, label: { x, y } };
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
  function between(from, to) {
    if (from === to) {
      const { x, y, w, h } = from;
      const out = x + w / 2;
      return {
        points: [{ x: out, y: y - h / 4 }, { x: out + 36, y: y - h / 4 }, { x: out + 36, y: y + h / 4 }, { x: out, y: y + h / 4 }],
        label: { x: out + 36, y },
      };
    }
    // Bent a little to one side, so that the way back is another line.
    const mid = { x: (from.x + to.x) / 2, y: (from.y + to.y) / 2 };
    const far = Math.hypot(to.x - from.x, to.y - from.y) || 1;
    const bend = Math.min(40, far / 8);
    const middle = { x: mid.x - ((to.y - from.y) / far) * bend, y: mid.y + ((to.x - from.x) / far) * bend };
    return { points: [border(from, middle), middle, border(to, middle)], label: middle };
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

  return { width, layered, drawn, kept };
})();
