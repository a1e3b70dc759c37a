"""The explorer: a page on localhost that shows and exchanges codes of faces, with JAX behind it.

`engine` computes what the page asks for, without web code; `server` answers requests and `guard`
refuses requests that do not come from the page; `page/` is the page. See docs/explorer.md.
The server needs `pip install '.[explore]'` in a checkout.

Only the page is public: `python -m pivq_jax.explore` starts it. There are no public Python names.
"""

__all__: list[str] = []
