//! Rules as messages to nf_tables. Names of constants are those of linux/netfilter/nf_tables.h.

use mesh_platform::netlink::{APPEND, Attributes, CREATE, Message, Netlink};
use mesh_proxy_core::capture::{Capture, Hook, Match, PortRange, Rule, TABLE, Verdict};
use std::io;

/// `NFNL_SUBSYS_NFTABLES`.
const NF_TABLES: u8 = 10;
/// `NFPROTO_INET`: IPv4 and IPv6 alike.
const INET: u8 = 1;
/// `NFNL_MSG_BATCH_BEGIN` and `NFNL_MSG_BATCH_END`: everything between takes effect at once, or nothing.
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
/// Bytes of `struct nfgenmsg`, with which every message begins.
const HEAD_BYTES: usize = 4;

/// `NFT_MSG_*`.
const NEW_TABLE: u8 = 0;
const GET_TABLE: u8 = 1;
const DEL_TABLE: u8 = 2;
const NEW_CHAIN: u8 = 3;
const NEW_RULE: u8 = 6;
const GET_RULE: u8 = 7;

/// `NFTA_TABLE_NAME`, which chains and rules have at the same number, and `NFTA_TABLE_USERDATA`.
const TABLE_NAME: u16 = 1;
const TABLE_USERDATA: u16 = 6;
/// `NFTNL_UDATA_TABLE_COMMENT`, in nft's own format inside user data: type, length, text with its zero byte.
const COMMENT: u8 = 0;

/// `NFTA_CHAIN_*`, `NFTA_HOOK_*`.
const CHAIN_NAME: u16 = 3;
const CHAIN_HOOK: u16 = 4;
const CHAIN_POLICY: u16 = 5;
const CHAIN_TYPE: u16 = 7;
const HOOK_NUMBER: u16 = 1;
const HOOK_PRIORITY: u16 = 2;
/// `NF_INET_PRE_ROUTING`, `NF_INET_LOCAL_IN`, `NF_INET_LOCAL_OUT`; `NF_IP_PRI_NAT_DST`, `NF_IP_PRI_FILTER`; `NF_ACCEPT`.
const PRE_ROUTING: u32 = 0;
const LOCAL_IN: u32 = 1;
const LOCAL_OUT: u32 = 3;
const NAT_DST: i32 = -100;
const FILTER: i32 = 0;
const ACCEPT: u32 = 1;

/// `NFTA_RULE_*`, `NFTA_LIST_ELEM`, `NFTA_EXPR_*`, `NFTA_DATA_*`.
const RULE_CHAIN: u16 = 2;
const RULE_EXPRESSIONS: u16 = 4;
const LIST_ELEMENT: u16 = 1;
const EXPRESSION_NAME: u16 = 1;
const EXPRESSION_DATA: u16 = 2;
const DATA_VALUE: u16 = 1;
const DATA_VERDICT: u16 = 2;
const VERDICT_CODE: u16 = 1;

/// `NFT_REG_VERDICT`, `NFT_REG_1`; `NFT_RETURN`.
const REGISTER_VERDICT: u32 = 0;
const REGISTER: u32 = 1;
const RETURN: i32 = -5;

/// `NFT_META_*`.
const META_IIFNAME: u32 = 6;
const META_OIFNAME: u32 = 7;
const META_SKUID: u32 = 10;
const META_NFPROTO: u32 = 15;
const META_L4PROTO: u32 = 16;
/// `NFT_CT_STATE`; `NF_CT_STATE_BIT` of `IP_CT_ESTABLISHED` and of `IP_CT_RELATED`.
const CT_STATE: u32 = 0;
const ESTABLISHED_OR_RELATED: u32 = 0b110;
/// `NFT_REJECT_ICMPX_UNREACH`, `NFT_REJECT_ICMPX_PORT_UNREACH`: in both families, that nobody is at this port.
const UNREACHABLE: u32 = 2;
const PORT_UNREACHABLE: u8 = 1;
/// `NFT_CMP_EQ`, `NFT_CMP_NEQ`, `NFT_CMP_LTE`, `NFT_CMP_GTE`.
const EQUAL: u32 = 0;
const UNEQUAL: u32 = 1;
const AT_MOST: u32 = 3;
const AT_LEAST: u32 = 5;
/// `NFT_PAYLOAD_NETWORK_HEADER`, `NFT_PAYLOAD_TRANSPORT_HEADER`.
const NETWORK_HEADER: u32 = 1;
const TRANSPORT_HEADER: u32 = 2;
/// `NFT_FIB_RESULT_ADDRTYPE`, `NFTA_FIB_F_DADDR`; `RTN_LOCAL`.
const ADDRESS_TYPE: u32 = 3;
const OF_DESTINATION: u32 = 2;
const LOCAL: u32 = 2;
/// `NF_NAT_RANGE_PROTO_SPECIFIED`: the port is given.
const PORT_GIVEN: u32 = 2;

/// `IFNAMSIZ`.
const INTERFACE_BYTES: usize = 16;
/// `IPPROTO_ICMP`, `IPPROTO_TCP`, `IPPROTO_UDP`, `IPPROTO_ICMPV6`; `NFPROTO_IPV4`, `NFPROTO_IPV6`.
const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMP6: u8 = 58;
const IPV4: u8 = 2;
const IPV6: u8 = 10;

/// What is in force: the mark of the table, and how many rules each of [`Hook::ALL`] has.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) digest: Option<String>,
    pub(super) rules: Vec<usize>,
}

/// Replaces the whole table.
pub(super) fn install(capture: &Capture, digest: &str) -> Vec<Message> {
    // Made first, so that there is one to delete; deleted, so that the new one holds nothing else.
    let mut messages = vec![new_table(None), del_table(), new_table(Some(digest))];
    for hook in Hook::ALL {
        messages.push(new_chain(hook));
        let rules = capture.rules(hook);
        messages.extend(rules.iter().map(|rule| new_rule(hook, rule)));
    }
    batch(messages)
}

/// Deletes the table, whether or not there is one.
pub(super) fn remove() -> Vec<Message> {
    batch(vec![new_table(None), del_table()])
}

/// Reads what is in force; `None` without a table of ours.
pub(super) fn find(netlink: &mut Netlink) -> io::Result<Option<Found>> {
    let tables = netlink.dump(message(GET_TABLE, 0))?;
    let name = [TABLE.as_bytes(), &[0]].concat();
    let ours = tables
        .iter()
        .find(|table| table.attribute(HEAD_BYTES, TABLE_NAME) == Some(&name[..]));
    let Some(ours) = ours else { return Ok(None) };
    let digest = ours
        .attribute(HEAD_BYTES, TABLE_USERDATA)
        .and_then(comment_in);
    let mut rules = Vec::new();
    for hook in Hook::ALL {
        let question = message(GET_RULE, 0)
            .with_text(TABLE_NAME, TABLE)
            .with_text(RULE_CHAIN, hook.name());
        let chain = [hook.name().as_bytes(), &[0]].concat();
        // Older kernels answer with the rules of every chain.
        let of_chain = netlink.dump(question)?.into_iter().filter(|rule| {
            rule.attribute(HEAD_BYTES, RULE_CHAIN) == Some(&chain[..])
                && rule.attribute(HEAD_BYTES, TABLE_NAME) == Some(&name[..])
        });
        rules.push(of_chain.count());
    }
    Ok(Some(Found { digest, rules }))
}

fn batch(inside: Vec<Message>) -> Vec<Message> {
    // struct nfgenmsg: family, version, and the subsystem, most significant byte first.
    let head = [0, 0, 0, NF_TABLES];
    let mut messages = vec![Message::frame(BATCH_BEGIN, &head)];
    messages.extend(inside);
    messages.push(Message::frame(BATCH_END, &head));
    messages
}

fn message(kind: u8, flags: u16) -> Message {
    let kind = u16::from_be_bytes([NF_TABLES, kind]);
    Message::new(kind, flags, &[INET, 0, 0, 0])
}

fn new_table(digest: Option<&str>) -> Message {
    let message = message(NEW_TABLE, CREATE).with_text(TABLE_NAME, TABLE);
    match digest {
        Some(digest) => message.with(TABLE_USERDATA, &comment(digest)),
        None => message,
    }
}

fn del_table() -> Message {
    message(DEL_TABLE, 0).with_text(TABLE_NAME, TABLE)
}

fn comment(text: &str) -> Vec<u8> {
    let length = u8::try_from(text.len() + 1).unwrap_or(u8::MAX);
    let text = text.bytes().take(usize::from(length) - 1).chain([0]);
    [COMMENT, length].into_iter().chain(text).collect()
}

fn comment_in(userdata: &[u8]) -> Option<String> {
    let (head, text) = userdata.split_first_chunk::<2>()?;
    let [kind, length] = *head;
    let text = text.get(..usize::from(length).checked_sub(1)?)?;
    (kind == COMMENT).then(|| String::from_utf8_lossy(text).into_owned())
}

fn new_chain(hook: Hook) -> Message {
    let (kind, number, priority) = match hook {
        Hook::Prerouting => ("nat", PRE_ROUTING, NAT_DST),
        Hook::Output => ("nat", LOCAL_OUT, NAT_DST),
        Hook::Arriving => ("filter", LOCAL_IN, FILTER),
        Hook::Leaving => ("filter", LOCAL_OUT, FILTER),
    };
    let place = Attributes::default()
        .with_number(HOOK_NUMBER, number)
        .with(HOOK_PRIORITY, &priority.to_be_bytes());
    message(NEW_CHAIN, CREATE)
        .with_text(TABLE_NAME, TABLE)
        .with_text(CHAIN_NAME, hook.name())
        .with_nested(CHAIN_HOOK, &place)
        .with(CHAIN_POLICY, &ACCEPT.to_be_bytes())
        .with_text(CHAIN_TYPE, kind)
}

fn new_rule(hook: Hook, rule: &Rule) -> Message {
    let mut expressions = Expressions::default();
    rule.matches.iter().for_each(|one| expressions.add(one));
    expressions.end(rule.verdict);
    message(NEW_RULE, CREATE | APPEND)
        .with_text(TABLE_NAME, TABLE)
        .with_text(RULE_CHAIN, hook.name())
        .with_nested(RULE_EXPRESSIONS, &expressions.0)
}

/// What a rule asks, step by step: something is loaded into a register, and compared there.
#[derive(Default)]
struct Expressions(Attributes);

impl Expressions {
    fn add(&mut self, condition: &Match) {
        match condition {
            Match::Uid(uid) => {
                self.meta(META_SKUID);
                self.compare(EQUAL, &uid.to_ne_bytes());
            }
            Match::FromLoopback => {
                self.meta(META_IIFNAME);
                self.compare(EQUAL, &loopback());
            }
            Match::ToLoopback => {
                self.meta(META_OIFNAME);
                self.compare(EQUAL, &loopback());
            }
            Match::ToHere => {
                // NFTA_FIB_DREG, _RESULT, _FLAGS
                let data = Attributes::default()
                    .with_number(1, REGISTER)
                    .with_number(2, ADDRESS_TYPE)
                    .with_number(3, OF_DESTINATION);
                self.push("fib", &data);
                self.compare(EQUAL, &LOCAL.to_ne_bytes());
            }
            Match::ToSubnet(subnet) => {
                let (family, offset) = if subnet.is_ipv4() {
                    (IPV4, 16)
                } else {
                    (IPV6, 24)
                };
                self.meta(META_NFPROTO);
                self.compare(EQUAL, &[family]);
                let octets = subnet.octets();
                let length = u32::try_from(octets.len()).unwrap_or_default();
                self.payload(NETWORK_HEADER, offset, length);
                self.keep(&subnet.mask());
                self.compare(EQUAL, &octets);
            }
            Match::ToPorts(ports) => self.ports(TCP, *ports),
            Match::ToUdpPorts(ports) => self.ports(UDP, *ports),
            Match::Tcp => self.protocol(TCP),
            Match::Icmp => self.protocol(ICMP),
            Match::Icmp6 => self.protocol(ICMP6),
            Match::Answer => {
                // NFTA_CT_DREG, _KEY
                let data = Attributes::default()
                    .with_number(1, REGISTER)
                    .with_number(2, CT_STATE);
                self.push("ct", &data);
                self.keep(&ESTABLISHED_OR_RELATED.to_ne_bytes());
                self.compare(UNEQUAL, &0_u32.to_ne_bytes());
            }
        }
    }

    fn protocol(&mut self, number: u8) {
        self.meta(META_L4PROTO);
        self.compare(EQUAL, &[number]);
    }

    fn ports(&mut self, protocol: u8, ports: PortRange) {
        self.protocol(protocol);
        self.payload(TRANSPORT_HEADER, 2, 2);
        if ports.first == ports.last {
            self.compare(EQUAL, &ports.first.to_be_bytes());
        } else {
            self.compare(AT_LEAST, &ports.first.to_be_bytes());
            self.compare(AT_MOST, &ports.last.to_be_bytes());
        }
    }

    fn end(&mut self, verdict: Verdict) {
        match verdict {
            Verdict::Pass => {
                let code = Attributes::default().with(VERDICT_CODE, &RETURN.to_be_bytes());
                let verdict = Attributes::default().with_nested(DATA_VERDICT, &code);
                self.immediate(REGISTER_VERDICT, &verdict);
            }
            Verdict::Refuse => {
                // NFTA_COUNTER_BYTES, _PACKETS; NFTA_REJECT_TYPE, _ICMP_CODE
                let none = 0_u64.to_be_bytes();
                let counter = Attributes::default().with(1, &none).with(2, &none);
                self.push("counter", &counter);
                let data = Attributes::default()
                    .with_number(1, UNREACHABLE)
                    .with(2, &[PORT_UNREACHABLE]);
                self.push("reject", &data);
            }
            Verdict::Redirect(port) => {
                self.immediate(REGISTER, &value(&port.to_be_bytes()));
                // NFTA_REDIR_REG_PROTO_MIN, _FLAGS
                let data = Attributes::default()
                    .with_number(1, REGISTER)
                    .with_number(3, PORT_GIVEN);
                self.push("redir", &data);
            }
        }
    }

    /// `NFTA_META_DREG`, `_KEY`.
    fn meta(&mut self, key: u32) {
        let data = Attributes::default()
            .with_number(1, REGISTER)
            .with_number(2, key);
        self.push("meta", &data);
    }

    /// `NFTA_CMP_SREG`, `_OP`, `_DATA`.
    fn compare(&mut self, how: u32, with: &[u8]) {
        let data = Attributes::default()
            .with_number(1, REGISTER)
            .with_number(2, how)
            .with_nested(3, &value(with));
        self.push("cmp", &data);
    }

    /// `NFTA_PAYLOAD_DREG`, `_BASE`, `_OFFSET`, `_LEN`.
    fn payload(&mut self, base: u32, offset: u32, length: u32) {
        let data = Attributes::default()
            .with_number(1, REGISTER)
            .with_number(2, base)
            .with_number(3, offset)
            .with_number(4, length);
        self.push("payload", &data);
    }

    /// Keeps the bits of a mask: `NFTA_BITWISE_SREG`, `_DREG`, `_LEN`, `_MASK`, `_XOR`.
    fn keep(&mut self, mask: &[u8]) {
        let length = u32::try_from(mask.len()).unwrap_or_default();
        let data = Attributes::default()
            .with_number(1, REGISTER)
            .with_number(2, REGISTER)
            .with_number(3, length)
            .with_nested(4, &value(mask))
            .with_nested(5, &value(&vec![0; mask.len()]));
        self.push("bitwise", &data);
    }

    /// `NFTA_IMMEDIATE_DREG`, `_DATA`.
    fn immediate(&mut self, register: u32, what: &Attributes) {
        let data = Attributes::default()
            .with_number(1, register)
            .with_nested(2, what);
        self.push("immediate", &data);
    }

    fn push(&mut self, name: &str, data: &Attributes) {
        let expression = Attributes::default()
            .with_text(EXPRESSION_NAME, name)
            .with_nested(EXPRESSION_DATA, data);
        self.0 = std::mem::take(&mut self.0).with_nested(LIST_ELEMENT, &expression);
    }
}

fn value(bytes: &[u8]) -> Attributes {
    Attributes::default().with(DATA_VALUE, bytes)
}

fn loopback() -> [u8; INTERFACE_BYTES] {
    let mut name = [0; INTERFACE_BYTES];
    if let Some(start) = name.first_chunk_mut::<2>() {
        *start = *b"lo";
    }
    name
}
