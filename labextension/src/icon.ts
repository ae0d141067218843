import { LabIcon } from '@jupyterlab/ui-components';

/** A light particle and its path. */
export const leptonIcon = new LabIcon({
  name: 'lepton-jupyter:lepton',
  svgstr: `<svg xmlns="http://www.w3.org/2000/svg" width="16" height="16" viewBox="0 0 22 22">
  <g fill="none">
    <ellipse class="jp-icon3" cx="11" cy="11" rx="9.2" ry="4" transform="rotate(-35 11 11)" stroke="#616161" stroke-width="1.6"/>
  </g>
  <circle class="jp-icon3" cx="11" cy="11" r="2.5" fill="#616161"/>
  <circle class="jp-icon3" cx="17.6" cy="4.6" r="2" fill="#616161"/>
</svg>`
});
