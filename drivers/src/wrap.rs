//! Puts middleware around every queue of a port.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::error::Error;

use crate::driver::{AddressRange, Driver, Port, Queue};

/// A port whose queues' drivers are wrapped, each by `wrap(queue number, driver)` on the thread that drives it.
pub struct Wrapped<P, F> {
    port: P,
    wrap: F,
}

impl<P, F> Wrapped<P, F> {
    /// Wraps the queues of `port`.
    pub fn new(port: P, wrap: F) -> Wrapped<P, F> {
        Wrapped { port, wrap }
    }
}

impl<P, F, D> Port for Wrapped<P, F>
where
    P: Port,
    F: Fn(u16, <P::Queue as Queue>::Driver) -> Result<D, Box<dyn Error + Send + Sync>> + Send + Sync,
    D: Driver,
{
    type Queue = WrappedQueue<P::Queue, F>;

    fn announce(&mut self, addresses: &[AddressRange]) {
        self.port.announce(addresses);
    }

    fn open(self, count: usize) -> Result<Vec<Self::Queue>, <Self::Queue as Queue>::Error> {
        let wrap = Arc::new(self.wrap);
        let queues = self.port.open(count).map_err(WrapError::Device)?;
        Ok(queues.into_iter().map(|queue| WrappedQueue { queue, wrap: wrap.clone() }).collect())
    }
}

/// One queue of a wrapped port.
pub struct WrappedQueue<Q, F> {
    queue: Q,
    wrap: Arc<F>,
}

impl<Q, F, D> Queue for WrappedQueue<Q, F>
where
    Q: Queue,
    F: Fn(u16, Q::Driver) -> Result<D, Box<dyn Error + Send + Sync>> + Send + Sync,
    D: Driver,
{
    type Driver = D;
    type Error = WrapError<Q::Error>;

    fn start(self) -> Result<D, Self::Error> {
        let driver = self.queue.start().map_err(WrapError::Device)?;
        (self.wrap)(driver.caps().queue, driver).map_err(WrapError::Middleware)
    }
}

/// Why a wrapped queue could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum WrapError<E: Error + 'static> {
    /// The device itself.
    #[error(transparent)]
    Device(E),
    /// What was to be put around it.
    #[error("{0}")]
    Middleware(Box<dyn Error + Send + Sync>),
}

#[cfg(test)]
mod tests;
