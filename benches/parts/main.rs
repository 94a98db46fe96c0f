//! Single mechanisms of a request's path under criterion, to see what a change does to one of them.
//!
//! ```text
//! cargo bench --bench parts [-- FILTER]
//! ```

mod device;
mod guest;
mod map;
mod queue;

criterion::criterion_group!(parts, device::rings, queue::requests, map::lookups, map::cuts);
criterion::criterion_main!(parts);
