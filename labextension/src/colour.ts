/** What colour a word has: the classes of style/base.css. The same table as faces/objects/html.py. */

const TONES: Record<string, string> = {
  completed: 'good',
  ready: 'good',
  PASS: 'good',
  OK: 'good',
  champion: 'good',
  active: 'good',
  delivered: 'good',
  failed: 'bad',
  lost: 'bad',
  error: 'bad',
  FAIL: 'bad',
  firing: 'bad',
  'gave up': 'bad',
  stopped: 'warn',
  pending: 'warn',
  missed: 'warn',
  skipped: 'warn',
  paused: 'warn',
  DRIFT: 'warn',
  INCONCLUSIVE: 'warn',
  queued: 'busy',
  starting: 'busy',
  running: 'busy',
  updating: 'busy',
  claimed: 'busy',
  fired: 'busy',
  waiting: 'busy'
};

export function tone(word: string): string {
  return `jp-mod-${TONES[word] ?? 'plain'}`;
}
