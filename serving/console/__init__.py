"""The console: one page over the gateway's own figures."""
