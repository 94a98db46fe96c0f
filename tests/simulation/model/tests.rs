use super::stamp::content;
use super::{Effect, End, Model};

/// Whether sector 0 may be found to hold this request's bytes; zero stands for zeros.
fn allows(model: &mut Model, request: u64) -> bool {
    let now = model.tick();
    let bytes = if request == 0 { [0; 512] } else { content(request, 0) };
    model.check_read(now, 0, &bytes).is_ok()
}

fn write(model: &mut Model) -> u64 {
    let request = model.submit(Effect::Write, 0..1);
    model.complete(request, End::Done);
    request
}

fn flush(model: &mut Model) {
    let submitted = model.tick();
    model.flushed(submitted);
}

#[test]
fn a_completed_write_replaces_what_was_there() {
    let mut model = Model::default();
    let first = write(&mut model);
    assert!(!allows(&mut model, 0) && allows(&mut model, first));
}

#[test]
fn a_write_in_flight_may_be_seen_or_not() {
    let mut model = Model::default();
    let first = write(&mut model);
    let second = model.submit(Effect::Write, 0..1);
    assert!(allows(&mut model, first) && allows(&mut model, second) && !allows(&mut model, 0));
}

#[test]
fn concurrent_writes_end_in_any_order() {
    let mut model = Model::default();
    let [first, second] = [0; 2].map(|_| model.submit(Effect::Write, 0..1));
    model.complete(second, End::Done);
    model.complete(first, End::Done);
    assert!(allows(&mut model, first) && allows(&mut model, second) && !allows(&mut model, 0));
}

#[test]
fn a_discard_leaves_the_old_content_or_zeros() {
    let mut model = Model::default();
    let first = write(&mut model);
    let discard = model.submit(Effect::Discard, 0..1);
    model.complete(discard, End::Done);
    assert!(allows(&mut model, first) && allows(&mut model, 0));
    write(&mut model);
    assert!(!allows(&mut model, first) && !allows(&mut model, 0));
}

#[test]
fn a_power_cut_takes_back_what_was_not_flushed_and_nothing_else() {
    let mut model = Model::default();
    let first = write(&mut model);
    let second = write(&mut model);
    flush(&mut model);
    let third = write(&mut model);
    model.power_failed();
    assert!(allows(&mut model, second) && allows(&mut model, third));
    assert!(!allows(&mut model, first) && !allows(&mut model, 0));
}

#[test]
fn a_flush_does_not_cover_a_write_that_completed_after_it_was_submitted() {
    let mut model = Model::default();
    let first = model.submit(Effect::Write, 0..1);
    let submitted = model.tick();
    model.complete(first, End::Done);
    model.flushed(submitted);
    model.power_failed();
    assert!(allows(&mut model, 0) && allows(&mut model, first));
}

#[test]
fn a_stable_write_survives_a_power_cut() {
    let mut model = Model::default();
    let first = model.submit(Effect::Write, 0..1);
    model.complete(first, End::DoneStable);
    model.power_failed();
    assert!(allows(&mut model, first) && !allows(&mut model, 0));
}

#[test]
fn the_death_of_the_daemon_takes_nothing_back() {
    let mut model = Model::default();
    let first = write(&mut model);
    model.daemon_died();
    assert!(allows(&mut model, first) && !allows(&mut model, 0));
}

#[test]
fn what_was_in_flight_at_a_death_is_settled_by_the_first_quiet_read() {
    let mut model = Model::default();
    let first = model.submit(Effect::Write, 0..1);
    model.daemon_died();
    assert!(allows(&mut model, 0) && allows(&mut model, first));
    let now = model.tick();
    model.check_quiet_read(now, 0, &content(first, 0)).unwrap();
    assert!(!allows(&mut model, 0) && allows(&mut model, first));
    model.power_failed();
    assert!(allows(&mut model, 0), "nothing was flushed");
}

#[test]
fn a_flush_after_a_death_covers_what_completed_before_it() {
    let mut model = Model::default();
    let first = write(&mut model);
    model.daemon_died();
    flush(&mut model);
    model.power_failed();
    assert!(allows(&mut model, first) && !allows(&mut model, 0));
}

#[test]
fn torn_or_misplaced_bytes_are_never_allowed() {
    let mut model = Model::default();
    let first = write(&mut model);
    let now = model.tick();
    let mut torn = content(first, 0);
    torn[300..].fill(0);
    assert!(model.check_read(now, 0, &torn).is_err());
    assert!(model.check_read(now, 0, &content(first, 1)).is_err());
}

#[test]
fn a_slow_read_may_return_what_was_replaced_and_flushed_since_it_began() {
    let mut model = Model::default();
    let first = write(&mut model);
    let began = model.submit_read();
    let second = write(&mut model);
    flush(&mut model);
    assert!(model.check_read(began, 0, &content(first, 0)).is_ok());
    assert!(model.check_read(began, 0, &content(second, 0)).is_ok());
    model.end_read(began);
    assert!(!allows(&mut model, first));
}

#[test]
fn no_flush_makes_a_failed_write_durable() {
    let mut model = Model::default();
    let failed = model.submit(Effect::Write, 0..1);
    model.complete(failed, End::Failed);
    let now = model.tick();
    model.check_quiet_read(now, 0, &content(failed, 0)).unwrap();
    flush(&mut model);
    model.power_failed();
    assert!(allows(&mut model, 0) && allows(&mut model, failed));
    let second = write(&mut model);
    assert!(!allows(&mut model, failed) && allows(&mut model, second));
}
