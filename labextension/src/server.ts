import { URLExt } from '@jupyterlab/coreutils';
import { ServerConnection } from '@jupyterlab/services';
import { IServerEvent, EventParser } from './sse';

/** What went wrong in the backend's words, and what to do next. */
export class LeptonError extends Error {
  constructor(
    message: string,
    readonly hint = '',
    readonly status = 0
  ) {
    super(message);
  }
}

/** The one line to our Jupyter server extension; nothing else here knows an address. */
export class Server {
  constructor(readonly settings: ServerConnection.ISettings) {}

  /** An address below `lepton-jupyter/`; read on each use, because it carries the Hub's prefix. */
  url(...parts: string[]): string {
    return URLExt.join(this.settings.baseUrl, 'lepton-jupyter', ...parts);
  }

  async get<T>(...parts: string[]): Promise<T> {
    return JSON.parse(await this._ask(this.url('api/v1', ...parts))) as T;
  }

  /** Do what a magic would do; returns its text and what it is about. */
  async verb(name: string, body: object): Promise<{ text: string; ref?: string }> {
    const init = {
      method: 'POST',
      body: JSON.stringify(body),
      headers: { 'Content-Type': 'application/json' }
    };
    return JSON.parse(await this._ask(this.url('verbs', name), init));
  }

  async page(...parts: string[]): Promise<string> {
    return this._ask(this.url(...parts));
  }

  /**
   * Server-sent events over fetch(). Not EventSource: that cannot send the X-XSRFToken header, without
   * which a Hub refuses a cookie-authenticated GET.
   */
  async *events(signal: AbortSignal): AsyncGenerator<IServerEvent> {
    const init = {
      signal,
      headers: { Accept: 'text/event-stream' },
      cache: 'no-store' as RequestCache
    };
    const response = await ServerConnection.makeRequest(
      this.url('api/v1/events'),
      init,
      this.settings
    );
    if (!response.ok || !response.body) {
      throw new ServerConnection.ResponseError(response);
    }
    const parser = new EventParser();
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    try {
      for (;;) {
        const { value, done } = await reader.read();
        if (done) {
          return;
        }
        yield* parser.feed(value);
      }
    } finally {
      void reader.cancel().catch(() => undefined);
    }
  }

  private async _ask(url: string, init: RequestInit = {}): Promise<string> {
    const response = await ServerConnection.makeRequest(url, init, this.settings);
    const text = await response.text();
    if (!response.ok) {
      throw failure(response, text);
    }
    return text;
  }
}

function failure(response: Response, text: string): Error {
  try {
    const data = JSON.parse(text);
    if (data.error?.message) {
      return new LeptonError(data.error.message, data.error.hint, response.status);
    }
    return new LeptonError(data.message || response.statusText, '', response.status);
  } catch {
    return new LeptonError(`${response.status} ${response.statusText}`, '', response.status);
  }
}
