"""The networks, in torch: loading, the compact models, and the transfer of weights to them."""
