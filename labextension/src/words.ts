/** Figures and times as people read them; the same rules as faces/objects/{html,when}.py. */

export function figure(value: unknown): string {
  if (value === null || value === undefined) {
    return '';
  }
  if (typeof value === 'boolean') {
    return value ? 'yes' : 'no';
  }
  if (typeof value !== 'number') {
    return typeof value === 'object'
      ? Object.entries(value)
          .map(([key, item]) => `${key} ${figure(item)}`)
          .join(', ')
      : String(value);
  }
  const size = Math.abs(value);
  if (Number.isInteger(value) || size >= 1000) {
    return String(Math.round(value));
  }
  const short = size < 1e-4 ? value.toExponential(3) : value.toPrecision(4);
  return short.replace(/\.?0+(?=e|$)/, '');
}

export function span(seconds: number): string {
  if (!(seconds >= 0)) {
    return '';
  }
  if (seconds < 10) {
    return `${seconds.toFixed(1)} s`;
  }
  const whole = Math.round(seconds);
  if (whole < 60) {
    return `${whole} s`;
  }
  if (whole < 3600) {
    return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  }
  return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
}

/** A distance in time with one unit, rounded: `8 s`, `5 min`, `3 h`, `2 d`. */
export function about(seconds: number): string {
  const size = Math.abs(seconds);
  if (size < 60) {
    return `${Math.round(size)} s`;
  }
  if (size < 3600) {
    return `${Math.round(size / 60)} min`;
  }
  return size < 36 * 3600 ? `${Math.round(size / 3600)} h` : `${Math.round(size / 86400)} d`;
}

/** A time in the reader's own zone: `14:05` today, else `24 Nov 14:05`. */
export function clock(at: number, now: number): string {
  const when = new Date(at * 1000);
  const time = when.toLocaleTimeString(undefined, { hour: '2-digit', minute: '2-digit' });
  if (when.toDateString() === new Date(now * 1000).toDateString()) {
    return time;
  }
  return `${when.toLocaleDateString(undefined, { day: 'numeric', month: 'short' })} ${time}`;
}

/** The curves that a card draws: those whose names speak of a loss, else the first two. */
export function drawn<T>(curve: Record<string, T>): [string, T][] {
  const all = Object.entries(curve);
  const losses = all.filter(([name]) => name.includes('loss'));
  return (losses.length ? losses : all.slice(0, 2)).slice(0, 4);
}

export function now(): number {
  return Date.now() / 1000;
}
