/** Starts the page without a server. */

import { BrowserBackend } from "./browser.js";
import { explore } from "./explorer.js";

explore(new BrowserBackend());
