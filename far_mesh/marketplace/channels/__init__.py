"""Payment channels: vouchers are taken here, and requests are served as far as vouchers cover them."""
