// How long ns-3's TCP takes for one message: reference times for fedsim's closed forms (see README of this folder).
//
// N senders, each behind an access link, share one link to a server. Every sender opens a connection; when all are open,
// each sends one message of `bytes` at the same instant. Printed: one line per run, the mean over senders of the seconds from
// that instant to the last byte at the server's application, and the largest.
#include "ns3/core-module.h"
#include "ns3/internet-module.h"
#include "ns3/network-module.h"
#include "ns3/point-to-point-module.h"
#include "ns3/traffic-control-module.h"
#include <iostream>
using namespace ns3;

// ns-3.37's CUBIC with the Reno-friendly region of RFC 9438, section 4.3, which that version lacks.
class Cubic9438 : public TcpCubic
{
public:
  static TypeId GetTypeId ()
  {
    static TypeId tid = TypeId ("Cubic9438").SetParent<TcpCubic> ().AddConstructor<Cubic9438> ();
    return tid;
  }
  std::string GetName () const override { return "Cubic9438"; }
  Ptr<TcpCongestionOps> Fork () override { return CopyObject<Cubic9438> (this); }
  uint32_t GetSsThresh (Ptr<const TcpSocketState> state, uint32_t bytesInFlight) override
  {
    uint32_t threshold = TcpCubic::GetSsThresh (state, bytesInFlight);
    m_prior = state->GetCwndInSegments ();
    m_estimate = double (threshold) / state->m_segmentSize;
    return threshold;
  }
  void IncreaseWindow (Ptr<TcpSocketState> state, uint32_t segmentsAcked) override
  {
    TcpCubic::IncreaseWindow (state, segmentsAcked);
    if (m_prior > 0 && state->m_cWnd >= state->m_ssThresh)
      {
        double alpha = m_estimate < m_prior ? 3 * (1 - 0.7) / (1 + 0.7) : 1;
        m_estimate += alpha * segmentsAcked / state->GetCwndInSegments ();
        if (m_estimate >= state->GetCwndInSegments () + 1)
          {
            state->m_cWnd = uint32_t (m_estimate) * state->m_segmentSize;
          }
      }
  }

private:
  double m_prior = 0, m_estimate = 0;
};
NS_OBJECT_ENSURE_REGISTERED (Cubic9438);

struct Message
{
  Ptr<Socket> socket;
  uint32_t expected = 0, received = 0, unsent = 0;
  double doneAt = -1;
};

static void Send (Message *message, Ptr<Socket> socket, uint32_t)
{
  while (uint32_t next = std::min (message->unsent, socket->GetTxAvailable ()))
    {
      message->unsent -= next;
      socket->Send (Create<Packet> (next));
    }
}

static void Receive (Message *message, Ptr<Socket> socket)
{
  while (Ptr<Packet> packet = socket->Recv ())
    {
      message->received += packet->GetSize ();
    }
  if (message->received >= message->expected && message->doneAt < 0)
    {
      message->doneAt = Simulator::Now ().GetSeconds ();
    }
}

static std::map<Address, Message *> g_byPeer;

static void Accept (Ptr<Socket> socket, const Address &from)
{
  socket->SetRecvCallback (MakeBoundCallback (&Receive, g_byPeer.at (InetSocketAddress::ConvertFrom (from).GetIpv4 ())));
}

int main (int argc, char *argv[])
{
  double bytes = 1e6, rttMs = 100, loss = 0, accessMbit = 100, serverMbit = 1000, startS = 20, buffer = 1u << 30;
  uint32_t senders = 1, runs = 1, first = 1, queue = 1000000;
  std::string congestion = "ns3::TcpCubic";
  CommandLine cmd;
  cmd.AddValue ("bytes", "payload of the message", bytes);
  cmd.AddValue ("rtt", "round trip, ms", rttMs);
  cmd.AddValue ("loss", "probability that a data segment is lost", loss);
  cmd.AddValue ("access", "access links, Mbit/s", accessMbit);
  cmd.AddValue ("server", "the server's link, Mbit/s", serverMbit);
  cmd.AddValue ("senders", "how many", senders);
  cmd.AddValue ("runs", "how many", runs);
  cmd.AddValue ("first", "number of the first run", first);
  cmd.AddValue ("queue", "packets that a link's queue holds", queue);
  cmd.AddValue ("congestion", "TypeId", congestion);

  cmd.AddValue ("buffer", "bytes that a socket buffers", buffer);
  cmd.Parse (argc, argv);

  Config::SetDefault ("ns3::TcpL4Protocol::SocketType", TypeIdValue (TypeId::LookupByName (congestion)));
  Config::SetDefault ("ns3::TcpSocket::SegmentSize", UintegerValue (1448));
  Config::SetDefault ("ns3::TcpSocket::InitialCwnd", UintegerValue (10));
  Config::SetDefault ("ns3::TcpSocket::DelAckCount", UintegerValue (1));
  Config::SetDefault ("ns3::TcpSocket::SndBufSize", UintegerValue (uint32_t (buffer)));
  Config::SetDefault ("ns3::TcpSocket::RcvBufSize", UintegerValue (uint32_t (buffer)));
  // As Linux: RTO = smoothed RTT + max(200 ms, 4 deviations); ns-3 alone lets it fall to the RTT itself, and times out for nothing.
  Config::SetDefault ("ns3::TcpSocketBase::MinRto", TimeValue (MilliSeconds (200)));
  Config::SetDefault ("ns3::TcpSocketBase::ClockGranularity", TimeValue (MilliSeconds (200)));
  Config::SetDefault ("ns3::DropTailQueue<Packet>::MaxSize", StringValue (std::to_string (queue) + "p"));

  for (uint32_t run = first; run < first + runs; ++run)
    {
      RngSeedManager::SetSeed (1);
      RngSeedManager::SetRun (run);
      g_byPeer.clear ();
      NodeContainer router (1), server (1), devices (senders);
      InternetStackHelper stack;
      stack.Install (router);
      stack.Install (server);
      stack.Install (devices);
      PointToPointHelper link;
      link.SetDeviceAttribute ("DataRate", DataRateValue (DataRate (uint64_t (serverMbit * 1e6))));
      link.SetChannelAttribute ("Delay", TimeValue (NanoSeconds (100)));
      NetDeviceContainer trunk = link.Install (router.Get (0), server.Get (0));
      Ptr<RateErrorModel> errors = CreateObject<RateErrorModel> ();
      errors->SetUnit (RateErrorModel::ERROR_UNIT_PACKET);
      errors->SetRate (loss);
      errors->AssignStreams (run);
      errors->Disable ();
      trunk.Get (1)->SetAttribute ("ReceiveErrorModel", PointerValue (errors));
      Ipv4AddressHelper addresses;
      addresses.SetBase ("10.0.0.0", "255.255.255.252");
      TrafficControlHelper control;  // an address brings FqCoDel, which drops: a plain queue instead
      Ipv4InterfaceContainer trunkAddresses = addresses.Assign (trunk);
      control.Uninstall (trunk);
      link.SetDeviceAttribute ("DataRate", DataRateValue (DataRate (uint64_t (accessMbit * 1e6))));
      link.SetChannelAttribute ("Delay", TimeValue (MicroSeconds (500 * rttMs)));
      std::vector<Message> messages (senders);
      std::vector<Ipv4Address> own;
      for (uint32_t i = 0; i < senders; ++i)
        {
          addresses.NewNetwork ();
          NetDeviceContainer access = link.Install (devices.Get (i), router.Get (0));
          own.push_back (addresses.Assign (access).GetAddress (0));
          control.Uninstall (access);
          g_byPeer[InetSocketAddress (own[i], 0).GetIpv4 ()] = &messages[i];
        }
      Ipv4GlobalRoutingHelper::PopulateRoutingTables ();
      Ptr<Socket> listener = Socket::CreateSocket (server.Get (0), TcpSocketFactory::GetTypeId ());
      listener->Bind (InetSocketAddress (Ipv4Address::GetAny (), 5000));
      listener->Listen ();
      listener->SetAcceptCallback (MakeNullCallback<bool, Ptr<Socket>, const Address &> (), MakeCallback (&Accept));
      for (uint32_t i = 0; i < senders; ++i)
        {
          messages[i].expected = uint32_t (bytes);
          messages[i].socket = Socket::CreateSocket (devices.Get (i), TcpSocketFactory::GetTypeId ());
          messages[i].socket->Bind (InetSocketAddress (own[i], 4000));
          Simulator::Schedule (Seconds (1), [&messages, i, &trunkAddresses] () {
            messages[i].socket->Connect (InetSocketAddress (trunkAddresses.GetAddress (1), 5000));
          });
          Simulator::Schedule (Seconds (startS), [&messages, i, bytes] () {
            messages[i].unsent = uint32_t (bytes);
            messages[i].socket->SetSendCallback (MakeBoundCallback (&Send, &messages[i]));
            Send (&messages[i], messages[i].socket, 0);
          });
        }
      Simulator::Schedule (Seconds (startS), &RateErrorModel::Enable, errors);
      Simulator::Stop (Seconds (startS + 3000));
      uint32_t waiting = 0;
      std::function<void ()> poll = [&] () {
        waiting = 0;
        for (auto &message : messages) waiting += message.doneAt < 0;
        if (waiting) Simulator::Schedule (MilliSeconds (100), poll); else Simulator::Stop ();
      };
      Simulator::Schedule (Seconds (startS), poll);
      Simulator::Run ();
      double sum = 0, last = 0;
      for (auto &message : messages)
        {
          double took = message.doneAt < 0 ? 1e9 : message.doneAt - startS;
          sum += took;
          last = std::max (last, took);
        }
      std::cout << sum / senders << " " << last << std::endl;
      Simulator::Destroy ();
    }
}
