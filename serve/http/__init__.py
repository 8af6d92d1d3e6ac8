"""From the bytes of a request to the bytes of an answer: routes, parsing, the protocols, pages, keys. No
Ray.
"""
