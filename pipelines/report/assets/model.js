// The data, and what adds up of it under a filter: counts and seconds exactly; a quantile only
// where one row stands alone.
const model = (() => {
  let data = null;
  let binLog = 0;

  function load(text) {
    data = JSON.parse(text);
    binLog = Math.log((1 + data.error) / (1 - data.error));
    return data;
  }

  function name(kind, code, unknown, others) {
    const { names, rest } = data[kind];
    if (code >= names.length) return `${format.count(rest)} other ${others}`;
    if (names[code] === null) return unknown;
    return names[code] === "" ? "(empty)" : VISIBLE.test(names[code]) ? names[code] : "(blank)";
  }
  const VISIBLE = /[^\s\p{Cc}\p{Cf}\p{Z}\u2800\u3164\uffa0]/u;
  // Of a name of its own: not of what has none, and not of all the others put together.
  const named = (kind, code) => code < data[kind].names.length && data[kind].names[code] !== null;
  const group = (code) => name("groups", code, "(no group)", "groups");
  const version = (code) => name("versions", code, "(no version)", "versions");
  const state = (code) => name("states", code, "(unknown)", "states");
  const actor = (code) => name("actors", code, "(not known)", "people");

  function each(part, filter, visit) {
    const { period, group: groups, version: versions } = part;
    for (let i = 0; i < period.length; i += 1) {
      if (period[i] < filter.from || period[i] > filter.to) continue;
      if (filter.group !== null && groups[i] !== filter.group) continue;
      if (filter.version !== null && versions && versions[i] !== filter.version) continue;
      visit(i);
    }
  }
  function gather(part, filter, keyOf, make, add) {
    const found = new Map();
    each(part, filter, (i) => {
      const key = keyOf(i);
      let sum = found.get(key);
      if (!sum) found.set(key, (sum = { rows: 0, ...make(i) }));
      sum.rows += 1;
      add(sum, i);
    });
    return [...found.values()];
  }
  const most = (a, b) => (b === null ? a : a === null ? b : Math.max(a, b));
  const least = (a, b) => (b === null ? a : a === null ? b : Math.min(a, b));
  const mean = (total, count) => (count ? total / count : null);

  function edges(filter) {
    const part = data.process_map;
    const size = data.states.names.length + 1;
    const found = gather(
      part, filter, (i) => part.from[i] * size + part.to[i],
      (i) => ({ from: part.from[i], to: part.to[i], count: 0, timed: 0, total: 0, min: null, max: null }),
      (sum, i) => {
        sum.count += part.count[i];
        sum.timed += part.timed[i];
        sum.total += part.total_s[i] || 0;
        sum.min = least(sum.min, part.min_s[i]);
        sum.max = most(sum.max, part.max_s[i]);
        sum.p50 = part.p50_s[i];
        sum.p90 = part.p90_s[i];
        sum.p99 = part.p99_s[i];
      },
    );
    for (const edge of found) {
      edge.mean = mean(edge.total, edge.timed);
      if (edge.rows > 1) edge.p50 = edge.p90 = edge.p99 = null;
      edge.isStart = data.states.names[edge.from] === null;
    }
    return found.sort((a, b) => b.count - a.count || a.from - b.from || a.to - b.to);
  }

  // Stays in states. By version they are those of the moves that left: the same stays, without
  // their quantiles.
  function states(filter) {
    if (filter.version === null && data.has.state_times) {
      const part = data.state_times;
      const found = gather(
        part, filter, (i) => part.state[i],
        (i) => ({ state: part.state[i], visits: 0, total: 0, max: null }),
        (sum, i) => {
          sum.visits += part.visits[i];
          sum.total += part.total_s[i] || 0;
          sum.max = most(sum.max, part.max_s[i]);
          sum.p50 = part.p50_s[i];
          sum.p90 = part.p90_s[i];
          sum.p99 = part.p99_s[i];
        },
      );
      for (const one of found) if (one.rows > 1) one.p50 = one.p90 = one.p99 = null;
      return ranked(found);
    }
    const byState = new Map();
    for (const edge of edges(filter)) {
      if (edge.isStart) continue;
      const one = byState.get(edge.from) || {
        state: edge.from, visits: 0, total: 0, max: null, p50: null, p90: null, p99: null,
      };
      one.visits += edge.timed;
      one.total += edge.total;
      one.max = most(one.max, edge.max);
      byState.set(edge.from, one);
    }
    return ranked([...byState.values()]);
  }
  function ranked(found) {
    for (const one of found) one.mean = mean(one.total, one.visits);
    return found.sort((a, b) => b.total - a.total || b.visits - a.visits);
  }

  function ends(filter) {
    const part = data.ends;
    return gather(
      part, filter, (i) => part.state[i], (i) => ({ state: part.state[i], count: 0 }),
      (sum, i) => { sum.count += part.count[i]; },
    );
  }

  // A list of periods with what was started, completed and open at the end of each.
  function flow(filter) {
    const fromCases = data.case_flow;
    const source = fromCases || data.flow;
    const { start, end, local, length } = fromCases || data.periods;
    const first = fromCases ? 0 : filter.from;
    const last = fromCases ? start.length - 1 : Math.min(filter.to, start.length - 1);
    const found = [];
    for (let i = first; i <= last; i += 1) {
      found.push({ start: start[i], end: end[i], local: local[i], started: 0, completed: 0, active: 0, transitions: 0, late: 0 });
    }
    const own = fromCases ? { ...filter, from: 0, to: last } : filter;
    each(source, own, (i) => {
      const one = found[source.period[i] - first];
      if (!one) return;
      for (const key of ["started", "completed", "active", "transitions", "late"]) {
        if (source[key]) one[key] += source[key][i];
      }
    });
    return { steps: found, fromCases: Boolean(fromCases), length };
  }
  function totals(filter) {
    const part = data.flow;
    const sum = { started: 0, completed: 0, transitions: 0, late: 0, illegal: 0, rework: 0, rows: 0, active: 0 };
    const last = Math.min(filter.to, Math.max(0, data.periods.start.length - 1));
    each(part, filter, (i) => {
      for (const key of ["started", "completed", "transitions", "late", "illegal", "rework"]) {
        sum[key] += part[key][i];
      }
      sum.rows += 1;
      for (const key of ["p50", "p90", "p99"]) sum[key] = part[`cycle_${key}_s`][i];
      if (part.period[i] === last) sum.active += part.active[i];
    });
    if (sum.rows !== 1) sum.p50 = sum.p90 = sum.p99 = null;
    if (!data.has.flow) for (const edge of edges(filter)) sum.transitions += edge.count;
    return sum;
  }

  // The middle of a bin, which is some bins of the sketch put together.
  const valueOf = (bin) => {
    const { joined } = data.cycles;
    return bin < 0 ? 0 : (Math.exp((bin + 0.5) * joined * binLog - 0.5 * binLog) * (1 - data.error)) / 1e6;
  };
  // Complete cases by cycle time: bins that ascend, and quantiles at most `error` off.
  function cycles(filter) {
    const part = data.cycles;
    const bins = gather(
      part, filter, (i) => part.bin[i], (i) => ({ bin: part.bin[i], count: 0 }),
      (sum, i) => { sum.count += part.count[i]; },
    ).sort((a, b) => a.bin - b.bin);
    const count = bins.reduce((all, one) => all + one.count, 0);
    for (const one of bins) one.seconds = valueOf(one.bin);
    const quantile = (share) => {
      let left = Math.max(1, Math.ceil(share * count));
      for (const one of bins) if ((left -= one.count) <= 0) return one.seconds;
      return null;
    };
    return { bins, count, p50: quantile(0.5), p90: quantile(0.9), p99: quantile(0.99) };
  }

  function people(filter) {
    const part = data.workload;
    const found = gather(
      part, filter, (i) => part.actor[i],
      (i) => ({ actor: part.actor[i], transitions: 0, cases: 0, handovers: 0, timed: 0, total: 0 }),
      (sum, i) => {
        for (const key of ["transitions", "cases", "handovers", "timed"]) sum[key] += part[key][i];
        sum.total += part.total_s[i] || 0;
      },
    );
    for (const one of found) one.mean = mean(one.total, one.timed);
    return found.sort((a, b) => b.transitions - a.transitions);
  }
  function heat(filter) {
    const cells = new Array(168).fill(0);
    each(data.heat, filter, (i) => { cells[data.heat.cell[i]] += data.heat.transitions[i]; });
    return { unit: data.heat.unit, cells };
  }
  function variants(filter) {
    const part = data.variants;
    const found = gather(
      part, filter, (i) => part.variant[i], (i) => ({ variant: part.variant[i], cases: 0, total: 0 }),
      (sum, i) => {
        sum.cases += part.cases[i];
        sum.total += part.total_s[i] || 0;
      },
    );
    for (const one of found) {
      one.mean = mean(one.total, one.cases);
      one.way = data.ways[one.variant] || null;
    }
    return found.sort((a, b) => (a.way ? 0 : 1) - (b.way ? 0 : 1) || b.cases - a.cases);
  }
  const reasons = (rows, filter) =>
    rows.filter((row) => filter.group === null || row.group === filter.group);

  const error = () => data.error * data.cycles.joined;

  return {
    error, load, group, version, state, actor, edges, states, ends, flow, totals, cycles, people, heat,
    variants, reasons, named,
    // Whether cases end, under any filter.
    get ended() {
      return data.cases.complete > 0 || data.ends.count.length > 0 || data.flow.completed.some(Boolean);
    },
    // Whether there is anything at all, under any filter.
    get nothing() {
      return !data.process_map.period.length && !data.flow.period.length && !data.cases.count
        && !data.workload.period.length && !data.state_times.period.length && !data.variants.period.length;
    },
    get data() { return data; },
  };
})();
