export interface IServerEvent {
  event: string;
  data: string;
}

/** Cuts a stream of text into server-sent events; comments and unknown fields are left out. */
export class EventParser {
  feed(text: string): IServerEvent[] {
    this._buffer += text;
    const blocks = this._buffer.split('\n\n');
    this._buffer = blocks.pop() ?? '';
    return blocks.map(parse).filter(event => event.data !== '');
  }

  private _buffer = '';
}

function parse(block: string): IServerEvent {
  const found: IServerEvent = { event: 'message', data: '' };
  for (const line of block.split('\n')) {
    const colon = line.indexOf(':');
    if (colon <= 0) {
      continue;
    }
    const text = line.slice(colon + 1).replace(/^ /, '');
    if (line.slice(0, colon) === 'data') {
      found.data += (found.data ? '\n' : '') + text;
    } else if (line.slice(0, colon) === 'event') {
      found.event = text;
    }
  }
  return found;
}
