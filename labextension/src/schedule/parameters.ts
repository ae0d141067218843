/** One parameter of a notebook: a name of the cell tagged `parameters`, and the literal it is set to. */
export interface IParameter {
  name: string;
  /** The value as Python wrote it. */
  source: string;
  /** What it is in JSON; undefined where it is no literal. */
  value: unknown;
  /** The comment behind it. */
  help: string;
}

const ASSIGNMENT = /^([A-Za-z_]\w*)\s*(?::[^=]+)?=(?!=)\s*(.+)$/;

/** Read the assignments of a cell: `name = literal  # help`, one a line. */
export function parseParameters(source: string): IParameter[] {
  const found: IParameter[] = [];
  for (const line of source.split('\n')) {
    const match = ASSIGNMENT.exec(line);
    if (match) {
      const [text, help] = cutComment(match[2]);
      found.push({ name: match[1], source: text, value: toJSON(text), help });
    }
  }
  return found;
}

/** Read what a person typed for a parameter: as its default's type has it, else JSON, else text. */
export function readValue(parameter: IParameter, typed: string): unknown {
  if (typeof parameter.value === 'string') {
    return typed;
  }
  const found = toJSON(typed);
  return found === undefined ? typed : found;
}

/** What a field shows for a parameter: text without its quotes, anything else as Python wrote it. */
export function shownValue(parameter: IParameter): string {
  return typeof parameter.value === 'string' ? parameter.value : parameter.source;
}

function cutComment(text: string): [string, string] {
  let quote = '';
  for (let at = 0; at < text.length; at += 1) {
    const char = text[at];
    if (quote) {
      if (char === '\\') {
        at += 1;
      } else if (char === quote) {
        quote = '';
      }
    } else if (char === '"' || char === "'") {
      quote = char;
    } else if (char === '#') {
      return [text.slice(0, at).trim(), text.slice(at + 1).trim()];
    }
  }
  return [text.trim(), ''];
}

/** A Python literal as JSON has it; undefined where it is none that JSON knows. */
function toJSON(text: string): unknown {
  const words: Record<string, unknown> = { True: true, False: false, None: null };
  if (text in words) {
    return words[text];
  }
  const single = /^'((?:[^'\\]|\\.)*)'$/.exec(text);
  const json = single
    ? `"${single[1].replace(/\\'/g, "'").replace(/"/g, '\\"')}"`
    : text.replace(/(?<=\d)_(?=\d)/g, '');
  try {
    return JSON.parse(json);
  } catch {
    return undefined;
  }
}
