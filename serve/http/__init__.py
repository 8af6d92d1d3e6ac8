"""HTTP without Ray: routes, parsing, the protocols, pages and keys."""
