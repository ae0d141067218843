import { INotebookTracker } from '@jupyterlab/notebook';

const PAUSE_MS = 1000; // until the output has its place in the document

/**
 * Save a notebook once when a run begins in it. The card that goes on after a reload is the one on disk, and
 * Lab's own saving comes only every two minutes.
 */
export function saverOf(notebooks: INotebookTracker | null): (node: HTMLElement) => void {
  return node => {
    window.setTimeout(() => {
      const panel = notebooks?.find(one => one.node.contains(node));
      const { model, isReady, contentsModel } = panel?.context ?? {};
      if (panel && isReady && model?.dirty && contentsModel?.writable !== false) {
        panel.context.save().catch(() => undefined); // Lab has told the person why
      }
    }, PAUSE_MS);
  };
}
