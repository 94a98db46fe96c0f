//! One operation by blocking calls, on a helper thread: publications, listings, name records, removals of metadata.
//!
//! Every object is in its index before it is there, and until after it is gone (index.rs); here that is plain to see.

use super::compound::WriteOp;
use super::error::{Failure, INCOMPLETE, absent_is_fine};
use super::home::Home;
use super::key::{self, Key, Shard};
use super::{list, names, tidy};
use crate::store::reply::Reply;
use crate::store::{Buffer, ObjectName, Op, Outcome, PublishMode, Room, StoreError};
use std::ffi::CStr;
use std::sync::Arc;

/// Hands the operation to a helper thread, which answers. Does not block.
pub(super) fn start(home: &Arc<Home>, op: Op, reply: Reply) {
    let home_too = Arc::clone(home);
    home.helpers.run(move || {
        let (result, buffer) = execute(&home_too, op);
        // Before whoever waits goes on: a process that ends while this thread has the last of it, and shuts the connections down, dies of
        // that in librados.
        drop(home_too);
        reply.send(result, buffer);
    });
}

fn execute(home: &Home, op: Op) -> (Result<Outcome, StoreError>, Option<Buffer>) {
    if let Some(ObjectName::Name(name)) = op.object() {
        let name = name.clone();
        return names::execute(home, &name, op);
    }
    match op {
        Op::Publish { object, content, mode, room } => {
            let published = publish(home, &object, &content, (mode, room));
            (published.map(|()| Outcome::Done).map_err(|failure| failure.at("publish", &object)), Some(content))
        }
        Op::Create { object, offset, buffer, size } => {
            let failure = format_args!("{object} (only data objects are created; {offset} {size})").to_string();
            (Err(Failure(libc::EINVAL).at("create", failure)), Some(buffer))
        }
        Op::Remove { object } => {
            let removed = remove(home, &object);
            (removed.map(|()| Outcome::Done).map_err(|failure| failure.at("remove", &object)), None)
        }
        Op::List { scope, after, limit } => (list::list(home, scope, after, limit).map(Outcome::Names), None),
        other => unreachable!("{other:?} is the channel's own"),
    }
}

fn publish(home: &Home, name: &ObjectName, content: &Buffer, (mode, room): (PublishMode, Room)) -> Result<(), Failure> {
    let pool = if matches!(name, ObjectName::Data { .. }) { &home.data } else { &home.metadata };
    let object = key::object(name);
    let new = || WriteOp::new(pool.library());
    match mode {
        PublishMode::Exclusive => {
            add_to_index(home, name, room)?;
            pool.operate_in(room, object.as_c_str(), &new().create_exclusive().write_full(content))
        }
        PublishMode::Replace => {
            // Usually it is there, and so is its entry.
            match pool.operate_in(room, object.as_c_str(), &new().assert_exists().write_full(content)) {
                Err(Failure(libc::ENOENT)) => {
                    add_to_index(home, name, room)?;
                    pool.operate_in(room, object.as_c_str(), &new().create().write_full(content))
                }
                other => other,
            }
        }
    }
}

fn add_to_index(home: &Home, name: &ObjectName, room: Room) -> Result<(), Failure> {
    let add = |object: &CStr, entry: &Key| {
        let op = WriteOp::new(home.metadata.library());
        let op = if key::is_in_every_store(object) { op.assert_exists() } else { op };
        match home.metadata.operate_in(room, object, &op.add_entries([entry.as_c_str()].into_iter())) {
            Err(Failure(libc::ENOENT)) => Err(Failure(INCOMPLETE)),
            other => other,
        }
    };
    if let ObjectName::Data { volume, block, .. } = name {
        add(key::metadata_index(*volume).as_c_str(), &key::shard_entry(Shard::of(*block)))?;
    }
    add(key::index(name).as_c_str(), &key::entry(name))
}

fn remove(home: &Home, name: &ObjectName) -> Result<(), Failure> {
    let op = WriteOp::new(home.metadata.library()).remove();
    absent_is_fine(home.metadata.operate(key::object(name).as_c_str(), &op))?;
    let entry = key::entry(name);
    let op = WriteOp::new(home.metadata.library()).remove_entries([entry.as_c_str()].into_iter());
    absent_is_fine(home.metadata.operate(key::index(name).as_c_str(), &op))?;
    if let ObjectName::Header { volume, .. } = name {
        tidy::after_header(home, *volume);
    }
    Ok(())
}
