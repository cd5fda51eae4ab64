// app.js → the component named by the last argument: `node build.js WIT WORLD OUTPUT`.

import { readFile, writeFile } from 'node:fs/promises';
import { componentize } from '@bytecodealliance/componentize-js';

const [witPath, worldName, output] = process.argv.slice(2);
const source = await readFile(new URL('app.js', import.meta.url), 'utf8');
const { component } = await componentize(source, { sourceName: 'app.js', witPath, worldName, enableFeatures: ['http', 'fetch-event'] });
await writeFile(output, component);
