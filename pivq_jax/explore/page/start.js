/** Starts the page with its backend: a page without a server has another one of these files. */

import { explore } from "./explorer.js";
import { ServerBackend } from "./server.js";

explore(new ServerBackend());
