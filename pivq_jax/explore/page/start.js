/** Starts the page with its server. */

import { explore } from "./explorer.js";
import { ServerBackend } from "./server.js";

explore(new ServerBackend());
