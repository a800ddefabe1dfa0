"""hfnb: distributed Hessian-free optimization with negative curvature, to learn, run and extend."""
