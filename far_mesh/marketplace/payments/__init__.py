"""How money comes in and goes out: payment providers behind one interface, and vouchers."""
