"""The explorer: a page on localhost to take faces apart, with JAX behind it.

`engine` does what the page asks for and knows nothing of the web; `server` answers requests and
`guard` refuses those that do not come from the page; `page/` is the page. See docs/explorer.md.
The server needs `pip install '.[explore]'` in a checkout.

Nothing here is public but the page: `--mode=explore` starts it.
"""

__all__: list[str] = []
