const assert = require('node:assert');
const test = require('node:test');
const { Fold } = require('./lib/board');
const { EventParser } = require('./lib/sse');

const event = (name, data) => `event: ${name}\ndata: ${JSON.stringify(data)}\n\n`;

test('events are read whole wherever the stream was cut, and pings are nothing', () => {
  const text = `: ping\n\n${event('run', { run_id: 'a' })}${event('gone', { kind: 'run', id: 'a' })}`;
  for (let at = 0; at < text.length; at += 1) {
    const parser = new EventParser();
    const found = [...parser.feed(text.slice(0, at)), ...parser.feed(text.slice(at))];
    assert.deepStrictEqual(
      found.map(one => one.event),
      ['run', 'gone']
    );
  }
});

test('a board takes what is new on top, what changed in its place, and lets go of what is gone', () => {
  const fold = new Fold();
  const told = [];
  fold.changed.connect((_, board) => told.push(board));
  const feed = (name, data) => fold.add({ event: name, data: JSON.stringify(data) });
  feed('board', {
    runs: [{ run_id: 'a', state: 'running' }],
    alerts: [{ id: 1, state: 'firing' }]
  });
  feed('run', { run_id: 'b', state: 'queued' });
  feed('run', { run_id: 'a', state: 'completed' });
  feed('gone', { kind: 'alert', id: '1' });
  assert.deepStrictEqual(fold.board.runs, [
    { run_id: 'b', state: 'queued' },
    { run_id: 'a', state: 'completed' }
  ]);
  assert.deepStrictEqual(fold.board.alerts, []);
  assert.deepStrictEqual(fold.board.endpoints, []);
  assert.strictEqual(told.length, 4);
  assert.notStrictEqual(told[0], told[1]);
});

test('while the backend is away the board stays as it was last seen', () => {
  const fold = new Fold();
  fold.add({ event: 'board', data: '{"runs": [{"run_id": "a"}], "is_up": true}' });
  fold.add({ event: 'away', data: '{}' });
  assert.strictEqual(fold.board.is_up, false);
  assert.strictEqual(fold.board.runs.length, 1);
});

test('an event of a kind that is not known yet is let pass', () => {
  const fold = new Fold();
  fold.add({ event: 'something new', data: '{}' });
  assert.deepStrictEqual(fold.board.runs, []);
});
