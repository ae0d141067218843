import { JupyterFrontEnd } from '@jupyterlab/application';
import { MainAreaWidget } from '@jupyterlab/apputils';
import { TranslationBundle } from '@jupyterlab/translation';
import { Widget } from '@lumino/widgets';
import { leptonIcon } from './icon';
import { Server } from './server';

/**
 * Show a run's executed notebook in the main area. Its page may run its own scripts (charts) and nothing else:
 * the frame has no origin, so neither cookies nor Lab are in its reach.
 */
export async function openReport(
  app: JupyterFrontEnd,
  server: Server,
  trans: TranslationBundle,
  run_id: string,
  title: string
): Promise<void> {
  const id = `lepton-jupyter-report-${run_id}`;
  const frame = document.createElement('iframe');
  frame.className = 'jp-Lepton-report';
  frame.title = trans.__('Executed notebook of run %1', run_id);
  frame.setAttribute('sandbox', 'allow-scripts');
  frame.srcdoc = await server.page('runs', run_id, 'report');
  for (const widget of app.shell.widgets('main')) {
    if (widget.id === id) {
      widget.dispose(); // a run that went on has a newer page
    }
  }
  const content = new Widget({ node: document.createElement('div') });
  content.addClass('jp-Lepton-reportBody');
  content.node.appendChild(frame);
  const widget = new MainAreaWidget({ content });
  widget.id = id;
  widget.title.label = title || run_id;
  widget.title.caption = trans.__('Run %1', run_id);
  widget.title.icon = leptonIcon;
  widget.title.closable = true;
  app.shell.add(widget, 'main');
  app.shell.activateById(id);
}
