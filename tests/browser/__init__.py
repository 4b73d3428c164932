"""The dashboard as people meet it: a browser, a wallet, a gateway, nodes and a chain, all of them real."""
