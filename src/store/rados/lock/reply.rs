//! What the cluster tells of locks and watches, taken apart.

/// Who has a lock.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Lockers {
    pub(super) exclusive: bool,
    pub(super) all: Vec<Locker>,
}

/// The cluster itself says which client it is and where it came from; the cookie is what that one says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Locker {
    pub(super) client: String,
    pub(super) cookie: String,
    pub(super) address: String,
}

impl Lockers {
    /// Each list is of texts that end with a zero, one for each locker.
    pub(super) fn parse(exclusive: bool, count: i32, [clients, cookies, addresses]: [&[u8]; 3]) -> Self {
        let columns =
            texts(clients).zip(texts(cookies)).zip(texts(addresses)).take(usize::try_from(count).unwrap_or_default());
        let all = columns.map(|((client, cookie), address)| Locker { client, cookie, address });
        Self { exclusive, all: all.collect() }
    }
}

fn texts(list: &[u8]) -> impl Iterator<Item = String> {
    list.split(|byte| *byte == 0).map(|text| String::from_utf8_lossy(text).into_owned())
}

/// What came of a notification.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Answers {
    /// What each watcher that answered said.
    pub(super) given: Vec<Vec<u8>>,
    /// The numbers of the clients whose watches count, and that did not answer in time.
    pub(super) missing: Vec<u64>,
}

impl Answers {
    /// `count {client, watch, length, answer}… count {client, watch}…`, little endian; counts and lengths of 32 bits, others of 64.
    /// `None` when it is cut short.
    pub(super) fn parse(reply: &[u8]) -> Option<Self> {
        let mut rest = Rest(reply);
        let mut answers = Self::default();
        for _ in 0..rest.number()? {
            rest.take(16)?;
            let len = rest.number()?;
            answers.given.push(rest.take(len)?.to_vec());
        }
        for _ in 0..rest.number()? {
            answers.missing.push(u64::from_le_bytes(*rest.take(16)?.first_chunk()?));
        }
        Some(answers)
    }
}

struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    fn number(&mut self) -> Option<usize> {
        usize::try_from(u32::from_le_bytes(*self.take(4)?.first_chunk()?)).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_lockers_come_apart() {
        let found = Lockers::parse(false, 2, [b"client.1\0client.2\0\0\0", b"a b\0c\0\0", b"1.2.3.4:0/5\0[::1]:0/6\0"]);
        let of = |client: &str, cookie: &str, address: &str| Locker {
            client: client.into(),
            cookie: cookie.into(),
            address: address.into(),
        };
        assert_eq!(found.all, [of("client.1", "a b", "1.2.3.4:0/5"), of("client.2", "c", "[::1]:0/6")]);
        assert_eq!(Lockers::parse(false, 0, [b"\0\0", b"\0", b"\0"]), Lockers::default());
    }

    #[test]
    fn answers_come_apart_and_half_a_reply_is_an_error() {
        let mut reply = Vec::new();
        reply.extend(1_u32.to_le_bytes());
        reply.extend(7_u64.to_le_bytes());
        reply.extend(70_u64.to_le_bytes());
        reply.extend(3_u32.to_le_bytes());
        reply.extend(b"yes");
        reply.extend(1_u32.to_le_bytes());
        reply.extend(8_u64.to_le_bytes());
        reply.extend(80_u64.to_le_bytes());
        let answers = Answers::parse(&reply).unwrap();
        assert_eq!(answers, Answers { given: vec![b"yes".to_vec()], missing: vec![8] });
        for len in 0..reply.len() {
            assert!(Answers::parse(&reply[..len]).is_none(), "{len}");
        }
    }
}
