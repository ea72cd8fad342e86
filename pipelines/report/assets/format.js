// Numbers, durations and times as people write them.
const format = (() => {
  const whole = new Intl.NumberFormat("en-GB", { maximumFractionDigits: 0 });
  const compact = new Intl.NumberFormat("en-GB", { notation: "compact", maximumFractionDigits: 1 });
  const UNITS = [
    [1e-3, 1, "ms"],
    [1, 90, "s"],
    [60, 3600, "min"],
    [3600, 48 * 3600, "h"],
    [86400, 730 * 86400, "days"],
    [365.25 * 86400, Infinity, "years"],
  ];

  function digits(value) {
    const most = value >= 100 || Number.isInteger(value) ? 0 : value >= 10 ? 1 : 2;
    return Number(value.toFixed(most)).toLocaleString("en-GB", { maximumFractionDigits: most });
  }

  function duration(seconds) {
    if (seconds === null || seconds === undefined || Number.isNaN(seconds)) return "–";
    if (seconds === 0) return "0 s";
    if (seconds < 0) return `−${duration(-seconds)}`;
    const [size, , name] = UNITS.find(([, below]) => seconds < below);
    const value = Number((seconds / size).toPrecision(2 + (seconds / size >= 100)));
    // Of the larger units a tenth matters.
    const text = size >= 3600 && value < 10 && value !== 1 ? value.toFixed(1) : digits(value);
    return `${text} ${text === "1" ? name.replace(/(day|year)s$/, "$1") : name}`;
  }

  const formatters = new Map();
  function formatter(zone, options) {
    const key = zone + JSON.stringify(options);
    if (!formatters.has(key)) {
      formatters.set(key, new Intl.DateTimeFormat("en-GB", { timeZone: zone, ...options }));
    }
    return formatters.get(key);
  }
  const DATE = { day: "numeric", month: "short", year: "numeric" };
  const TIME = { ...DATE, hour: "2-digit", minute: "2-digit", hourCycle: "h23" };
  const date = (ms, zone) => formatter(zone, DATE).format(ms);
  const time = (ms, zone) => formatter(zone, TIME).format(ms);

  // A name within a sentence: not too long for it; and one that is written from right to left, or
  // says so of itself, does not turn the words around it.
  const MOST_LETTERS = 80;
  const TURNING = /[\u200e\u200f\u202a-\u202e\u2066-\u2069]/gu;
  const LEFTWARDS = /[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc\u{10800}-\u{10fff}\u{1e800}-\u{1efff}]/u;
  function name(text, most = MOST_LETTERS) {
    const letters = [...text.replace(TURNING, "")];
    const short = letters.length > most ? `${letters.slice(0, most - 1).join("")}…` : letters.join("");
    return LEFTWARDS.test(short) ? `\u2068${short}\u2069` : short;
  }

  return {
    name,
    // Of windows and periods, which are round.
    length: (ms) => duration(ms / 1000).replace(".0 ", " "),
    count: (n) => whole.format(n),
    short: (n) => (Math.abs(n) < 10000 ? whole.format(n) : compact.format(n)),
    share: (part, all) => {
      if (!all) return "–";
      const percent = (100 * part) / all;
      if (part && percent < 0.1) return "< 0.1 %";
      if (part < all && percent > 99.9) return "> 99.9 %";
      return `${percent < 10 && percent !== Math.round(percent) ? percent.toFixed(1) : Math.round(percent)} %`;
    },
    duration,
    date,
    time,
    // A moment as exactly as a stretch of that length needs it.
    moment: (ms, length, zone) => (length && length < 82800000 ? time : date)(ms, zone),
    tick: (ms, span, zone) =>
      formatter(
        zone,
        span < 2 * 86400000
          ? { hour: "2-digit", minute: "2-digit", hourCycle: "h23" }
          : span < 300 * 86400000
            ? { day: "numeric", month: "short" }
            : { month: "short", year: "numeric" },
      ).format(ms),
    counted: (n, one, many = `${one}s`) => `${whole.format(n)} ${n === 1 ? one : many}`,
  };
})();
