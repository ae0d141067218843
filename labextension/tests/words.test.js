const assert = require('node:assert');
const test = require('node:test');
const { drawn, figure, span } = require('./lib/words');
const { found, machineOf, share, steps, times } = require('./lib/card/facts');

test('figures have four digits and no noise', () => {
  const values = [0.1, 0.98765, 12345.678, 2.739e-5, 20, 0, 100.0, true, null, undefined, 'cpu'];
  const texts = ['0.1', '0.9877', '12346', '2.739e-5', '20', '0', '100', 'yes', '', '', 'cpu'];
  assert.deepStrictEqual(values.map(figure), texts);
});

test('a length of time has at most two units', () => {
  assert.deepStrictEqual([3.21, 42, 125, 4800, -1].map(span), [
    '3.2 s',
    '42 s',
    '2 min 5 s',
    '1 h 20 min',
    ''
  ]);
});

test('a card draws the losses, else the first two curves', () => {
  assert.deepStrictEqual(drawn({ lr: 1, val_loss: 2, train_loss: 3 }), [
    ['val_loss', 2],
    ['train_loss', 3]
  ]);
  assert.deepStrictEqual(drawn({ a: 1, b: 2, c: 3 }), [
    ['a', 1],
    ['b', 2]
  ]);
});

test('what is left is told by the pace so far, and only while it moves', () => {
  const run = {
    run_id: 'a',
    kind: 'train',
    title: 'Net',
    state: 'running',
    created_at: 0,
    started_at: 100
  };
  const moving = { ...run, progress: { done: 5, total: 20, unit: 'epochs' } };
  assert.strictEqual(share(moving), 0.25);
  assert.strictEqual(steps(moving), '5 of 20 epochs');
  assert.deepStrictEqual(times(moving, 110), { took: 10, left: 30 });
  const over = { ...moving, state: 'stopped', ended_at: 120 };
  assert.deepStrictEqual(times(over, 500), { took: 20, left: null });
  assert.strictEqual(share(run), null);
});

test('what a report found is its headline and its sentences', () => {
  const result = {
    verdict: 'DRIFT',
    headline: 'age moved',
    sentences: ['It is higher.'],
    n_rows: 4
  };
  assert.deepStrictEqual(found({ result }), {
    verdict: 'DRIFT',
    lines: ['age moved', 'It is higher.']
  });
});

test('between two epochs a card shows how the work and the machine do', () => {
  const run = {
    run_id: 'a',
    kind: 'train',
    title: 'Net',
    state: 'running',
    created_at: 0,
    started_at: 100,
    progress: { done: 1, total: 4, unit: 'epochs' },
    telemetry: { epoch: 2, rows_per_s: 25000.4, cpu_cores: 1.94, rss_bytes: 3 * 2 ** 30, lr: 0.001 }
  };
  assert.deepStrictEqual(machineOf(run), [
    ['rows/s', '25,000'],
    ['lr', '0.001'],
    ['CPU', '1.9 cores'],
    ['memory', '3.0 GiB']
  ]);
  assert.strictEqual(share(run), 0.5);
  assert.strictEqual(times(run, 110).left, 10);
  assert.deepStrictEqual(machineOf({ ...run, state: 'completed' }), []);
});
