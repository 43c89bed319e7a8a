// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/*
 * Never loaded. Holds one object of each shared type, so that clang writes every one of them into
 * the BTF that agent/kernel/layout.test.ts reads (an enum that only code uses leaves none).
 */
#include "dns_layout.h"
#include "flow_layout.h"
#include "mesh_layout.h"
#include "probe_layout.h"

enum mesh_number mesh_number;
struct addr addr;
struct flow_key flow_key;
struct handoff_key handoff_key;
struct note note;
struct pod_cfg pod_cfg;
struct mesh_meta mesh_meta;
struct local_ip local_ip;
struct attest attest;
struct policy_key policy_key;
struct policy_val policy_val;
struct service service;
struct endpoint_key endpoint_key;
enum note_kind note_kind;
enum note_flag note_flag;
enum policy_verdict policy_verdict;
enum pod_flag pod_flag;
enum listener_slot listener_slot;
enum mesh_outcome mesh_outcome;
enum dns_number dns_number;
struct dns_pod dns_pod;
struct dns_slot_key dns_slot_key;
enum dns_outcome dns_outcome;
enum flow_number flow_number;
enum flow_kind flow_kind;
enum flow_role flow_role;
enum flow_flag flow_flag;
enum flow_loss flow_loss;
struct flow_event flow_event;
struct deny_event deny_event;
struct flow_sock flow_sock;
enum guard_number guard_number;
enum probe_outcome probe_outcome;
enum strict_mode strict_mode;
enum strict_outcome strict_outcome;
struct strict_nameserver strict_nameserver;
