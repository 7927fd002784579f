// The plugin's values as messages of the contract. Pure functions; only agent_client.cc and spool_writer.cc include this.
#pragma once

#include <vsocket/v1/agent.pb.h>

#include "cni-plugin/agent.h"

namespace vsocket::cni {

inline void ToMessage(const Pod& pod, v1::LocalPod* out) {
  out->set_uid(pod.uid);
  out->set_namespace_(pod.ns);
  out->set_name(pod.name);
  out->set_container_id(pod.attachment.container_id);
  out->set_ifname(pod.attachment.ifname);
  out->set_netns_path(pod.netns);
  out->set_netns_cookie(pod.netns_facts.cookie);
  out->set_netns_inode(pod.netns_facts.inode);
  for (const std::string& address : pod.ips) out->add_ips(address);
}

inline void ToMessage(const Attachment& attachment, v1::Attachment* out) {
  out->set_container_id(attachment.container_id);
  out->set_ifname(attachment.ifname);
}

}  // namespace vsocket::cni
