const assert = require('node:assert');
const test = require('node:test');
const { parseParameters, readValue, shownValue } = require('./lib/schedule/parameters');

test('a parameter is a name, a literal and the comment behind it', () => {
  assert.deepStrictEqual(parseParameters('region = "north"  # which half # of it\n'), [
    { name: 'region', source: '"north"', value: 'north', help: 'which half # of it' }
  ]);
});

test('every kind of literal is read as JSON has it, and an expression is left as it is', () => {
  const cell = [
    'n: int = 20',
    'big = 1_000',
    'rate=1e-3',
    "text = 'it\\'s \"here\" # no comment'",
    'on = True',
    'nothing = None',
    'columns = [1, 2]',
    'path = Path("x")',
    'if n == 20:',
    '    m = 3',
    '# k = 4'
  ].join('\n');
  const found = Object.fromEntries(parseParameters(cell).map(one => [one.name, one.value]));
  assert.deepStrictEqual(found, {
    n: 20,
    big: 1000,
    rate: 0.001,
    text: 'it\'s "here" # no comment',
    on: true,
    nothing: null,
    columns: [1, 2],
    path: undefined
  });
});

test('what is typed for text stays text, anything else is JSON where it can be', () => {
  const [text, number] = parseParameters('code = "01"\nn = 5');
  assert.strictEqual(readValue(text, '007'), '007');
  assert.strictEqual(readValue(number, '7'), 7);
  assert.strictEqual(readValue(number, 'seven'), 'seven');
  assert.strictEqual(shownValue(text), '01');
  assert.strictEqual(shownValue(number), '5');
});
