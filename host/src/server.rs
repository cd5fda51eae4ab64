//! Listeners, connection caps, header time-outs, drain.
