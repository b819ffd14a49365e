//! Listeners for clients, whatever door is behind them: bounds, odd clients, load balancers.

/// Input that is too large, too deep or too slow.
mod limits;
/// What all listeners do with HTTP: names of hosts, bounds, odd clients, compressed bodies.
mod listeners;
/// Behind a load balancer that speaks the PROXY protocol.
mod proxy;
/// TLS on the listeners.
mod tls;
