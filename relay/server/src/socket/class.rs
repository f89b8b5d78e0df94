//! What of an IP header a relayed port chooses: DF, errors that come back, and the DSCP.

use std::io;
use std::os::fd::BorrowedFd;

use super::set_option;

/// The bits of a traffic class that are the DSCP (RFC 2474 §3); the others are ECN.
pub const DSCP_BITS: u8 = 0xFC;

/// The kernel shall leave DF at 0 and fragment what is too long for the link. It does not believe
/// ICMP messages about the path, which anybody can forge, but reports them.
pub fn fragment_freely(socket: BorrowedFd<'_>) -> io::Result<()> {
    set_option(socket, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_OMIT)
}

/// The kernel shall set DF, whatever it has heard about the path.
pub fn never_fragment(socket: BorrowedFd<'_>) -> io::Result<()> {
    set_option(socket, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_PROBE)
}

/// The kernel shall keep what the network says about datagrams that were sent.
pub fn report_errors(socket: BorrowedFd<'_>, v4: bool) -> io::Result<()> {
    if v4 {
        set_option(socket, libc::IPPROTO_IP, libc::IP_RECVERR, 1)
    } else {
        set_option(socket, libc::IPPROTO_IPV6, libc::IPV6_RECVERR, 1)
    }
}

/// The kernel shall say which traffic class each datagram came with.
///
/// # Errors
/// The socket is of another family.
pub fn report_class(socket: BorrowedFd<'_>, v4: bool) -> io::Result<()> {
    if v4 {
        set_option(socket, libc::IPPROTO_IP, libc::IP_RECVTOS, 1)
    } else {
        set_option(socket, libc::IPPROTO_IPV6, libc::IPV6_RECVTCLASS, 1)
    }
}
