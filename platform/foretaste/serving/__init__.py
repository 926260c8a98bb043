"""The request path: plain classes, with Ray Serve put on at the edge."""
