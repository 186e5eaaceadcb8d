//! The adapters against real protocols: DynamoDB embedded, the other services as answers on a loopback socket.

mod differential;
mod keys;
mod messages;
mod store;
mod support;
