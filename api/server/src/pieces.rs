//! A body that is put together from texts which are there already: a list of 10,000 objects is sent without being in
//! memory a second time.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use hyper::body::{Body, Frame, SizeHint};

/// Bytes that are handed on at once: enough to fill several TLS records, and small beside the list.
const CHUNK: usize = 128 * 1024;

/// Texts, one after the other.
#[derive(Debug)]
pub(crate) struct Pieces {
    rest: VecDeque<Bytes>,
    left: usize,
}

impl Pieces {
    /// A body of these texts.
    pub(crate) fn new(texts: impl IntoIterator<Item = Bytes>) -> Pieces {
        let rest: VecDeque<Bytes> = texts.into_iter().filter(|text| !text.is_empty()).collect();
        let left = rest.iter().map(Bytes::len).sum();
        Pieces { rest, left }
    }

    /// The next bytes; none at the end.
    fn chunk(&mut self) -> Option<Bytes> {
        let first = self.rest.pop_front()?;
        self.left -= first.len();
        if self.rest.is_empty() || first.len() >= CHUNK {
            return Some(first);
        }
        let mut chunk = BytesMut::with_capacity((first.len() + self.left).min(CHUNK + first.len()));
        chunk.extend_from_slice(&first);
        while let Some(next) = self.rest.front().filter(|next| chunk.len() + next.len() <= chunk.capacity()) {
            self.left -= next.len();
            chunk.extend_from_slice(next);
            self.rest.pop_front();
        }
        Some(chunk.freeze())
    }

    /// All of it in one.
    pub(crate) fn whole(mut self) -> Bytes {
        if self.rest.len() == 1 {
            return self.rest.pop_front().unwrap_or_default();
        }
        let mut whole = BytesMut::with_capacity(self.left);
        self.rest.iter().for_each(|text| whole.extend_from_slice(text));
        whole.freeze()
    }
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.chunk().map(|chunk| Ok(Frame::data(chunk))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent_is_all_of_it_in_order() {
        for sizes in [vec![], vec![0], vec![5], vec![1; 300_000], vec![CHUNK, 1, CHUNK + 1, 0, 7], vec![1, CHUNK]] {
            let texts = || sizes.iter().enumerate().map(|(at, size)| Bytes::from(vec![at as u8; *size]));
            let mut pieces = Pieces::new(texts());
            let mut sent = Vec::new();
            while let Some(chunk) = pieces.chunk() {
                assert!(!chunk.is_empty());
                sent.extend_from_slice(&chunk);
                assert_eq!(pieces.size_hint().exact(), Some((sizes.iter().sum::<usize>() - sent.len()) as u64));
            }
            assert!(pieces.is_end_stream());
            assert!(sent == texts().collect::<Vec<_>>().concat(), "{sizes:?}");
            assert_eq!(Pieces::new(texts()).whole(), sent);
        }
    }
}
