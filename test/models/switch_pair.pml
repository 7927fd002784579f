/* Both directions of a connection on one node, as the shim runs them: each end has a thread that sends and one that receives, which share
   the socket and its locks. An atomic block is what the code does under rx_lock or tx_lock. Values of bytes do not matter here (switch.pml
   has them): a message is {kind, position}. Index i is an end; arrays of words belong to the end that writes them, and `tcp[i]` and
   `ring` of i are the direction that i sends.

   Events at any moment: attach, up, down (flap), the agent's death (lease over), shutdown, SIGKILL of one end, a reader that gives
   the connection to a stranger (LeaveForGood). */

#ifndef N0
#define N0 2                    /* bytes from end 0 */
#endif
#ifndef N1
#define N1 1                    /* bytes from end 1 */
#endif
#ifndef G
#define G 2                     /* generations of each direction */
#endif
#ifndef CAP
#define CAP 1                   /* ring bytes */
#endif
#ifndef SOCKBUF
#define SOCKBUF 2
#endif
#ifndef FLAPS
#define FLAPS 1                 /* ways down for no reason, both ends together */
#endif
#ifndef VICTIM
#define VICTIM 0                /* the end that may be killed */
#endif
#define TOTAL(i) ((i) == 0 -> N0 : N1)
#define P (1 - i)               /* the peer of end i */

#define PAY    0
#define BELL   1
#define SWITCH 2

#define T 0                     /* Mode: kTcp */
#define R 1                     /* kRing */
#define L 2                     /* sender: kLeaving */
#define D 2                     /* receiver: kDraining */

/* WakeTarget */
#define NOBODY   0
#define TCPBELL  1
#define FAST_RCV 2              /* wake object of end's receiving thread; + 1: of its sending thread */
#define RCV 0
#define SND 1

#define OPEN  0                 /* Gate */
#define SHUT  1
#define SHUTEARLY  4            /* ... and has not entered the ring */
#define SHUTBEHIND 7            /* ... nor could it, before the sender left */
#define ANSWERED   5            /* kAnsweredEarly */
#define TAKEN(g)      ((g) << 3 | 2)
#define ENTERED(g)    ((g) << 3 | 3)
#define RETREATING(g) ((g) << 3 | 6)
#define RETREATED(g)  ((g) << 3 | 7)

/* The kernel */
chan tcp[2] = [SOCKBUF] of { byte, byte };
bit fin[2];                     /* this end's FIN is behind all of tcp[end] */
bit reset[2];                   /* this end's socket has got a RST */
bit alive[2];

/* Words */
byte tail[2], head[2], gate[2], pgen[2], pstart[2], fgen[2];
byte data_waiter[2], space_waiter[2];
bit attached[2];
bit lease = 1;
byte ring0[CAP], ring1[CAP];    /* positions */

/* Sock: sending */
byte txm[2], gen[2], opos[2], shead[2], from[2];
bit frame[2], shut[2], rang[2];   /* rang: a bell of this generation was sent */
/* Sock: receiving */
byte rxm[2], rgen[2], tpos[2], ipos[2], until[2];
bit framed[2], fin_seen[2], dead[2], error[2], pinned[2], plain[2], gave_up[2];
byte sleepers[2];
bit registered[4], wake[4], fast[4], inkernel[4];   /* [end * 2 + thread] */
byte flaps;
bit hand_used, reader_gone[2];

#define AT(i, t) ((i) * 2 + (t))
#define RINGAT(i, p) ((i) == 0 -> ring0[(p) % CAP] : ring1[(p) % CAP])
#define QUEUED(i) (len(tcp[i]) > 0)
#define CANPUT(i) (!alive[1 - (i)] || len(tcp[i]) < SOCKBUF)
#define READABLE(i) (QUEUED(1 - (i)) || fin[1 - (i)] || reset[i])
#define ROOM(i) (CAP - (opos[i] - shead[i]))

inline Put(kind, pos) { if :: alive[P] -> tcp[i]!kind,pos :: else -> reset[i] = 1 fi }

inline Bell() {
  if :: txm[i] == R && !shut[i] && CANPUT(i) && !reset[i] -> rang[i] = 1; Put(BELL, 0) :: else fi   /* EAGAIN: the peer is readable */
}

inline WakeSleepers() {
#ifndef BAD_NO_PASSING_ON
  wake[AT(i, RCV)] = registered[AT(i, RCV)]; wake[AT(i, SND)] = registered[AT(i, SND)]
#else
  skip
#endif
}

inline Refresh() { if :: head[P] > shead[i] && head[P] <= opos[i] -> shead[i] = head[P] :: else fi }

inline Flush() {
  do
  :: txm[i] == L && frame[i] && CANPUT(i) && !shut[i] && !reset[i] -> Put(SWITCH, from[i]); frame[i] = 0
  :: txm[i] == L && !frame[i] && from[i] < opos[i] && CANPUT(i) && !shut[i] && !reset[i] ->
       assert(RINGAT(i, from[i]) == from[i]); Put(PAY, from[i]); from[i]++
  :: txm[i] == L && !frame[i] && from[i] == opos[i] ->
       txm[i] = T;
       if
       :: gate[P] == TAKEN(gen[i]) || gate[P] == ENTERED(gen[i]) -> gate[P] = OPEN
       :: gate[P] == RETREATING(gen[i]) -> gate[P] = RETREATED(gen[i])
       :: gate[P] == SHUTBEHIND -> gate[P] = ANSWERED
       :: else
       fi
  :: else -> break
  od
}
#define SILENTLY (head[P] < pstart[i] && !rang[i])
inline StartLeaving() {
  Refresh(); from[i] = shead[i]; frame[i] = 1; txm[i] = L;
  if
  :: gate[P] == TAKEN(gen[i]) && SILENTLY -> gate[P] = RETREATING(gen[i]); frame[i] = 0
  :: gate[P] == SHUTEARLY && SILENTLY -> gate[P] = SHUTBEHIND; frame[i] = 0   /* answered when all is out */
  :: gate[P] == SHUTEARLY && !SILENTLY -> gate[P] = SHUT
  :: else
  fi;
  Flush()
}

#define BEHIND_UNREAD (gate[P] == TAKEN(gen[i]) && head[P] < pstart[i] && !rang[i])
inline DataBell() {
  if :: txm[i] == R && BEHIND_UNREAD -> StartLeaving() :: else -> Bell() fi
}
inline Ring(target) {
  if
  :: target == NOBODY -> skip
  :: target == TCPBELL -> Bell()
  :: target >= FAST_RCV -> fast[AT(P, target - FAST_RCV)] = 1
  :: target >= FAST_RCV -> Bell()                              /* not known yet */
  fi;
  target = 0
}
inline RingForData(target) {
  if
  :: target == NOBODY -> skip
  :: target == TCPBELL -> DataBell()
  :: target >= FAST_RCV -> fast[AT(P, target - FAST_RCV)] = 1
  :: target >= FAST_RCV -> DataBell()
  fi;
  target = 0
}

#ifdef BAD_EARLY_PROPOSAL
#define SEES (fgen[P] == gen[i])
#elif defined(BAD_PROPOSE_BEFORE_FINISHED)
#define SEES attached[P]
#else
#define SEES (attached[P] && fgen[P] == gen[i])
#endif

inline ConsiderGoingUp() {
  if
  :: txm[i] == T && gen[i] < G && attached[i] && !plain[i] && !shut[i] && !fin_seen[i] && !pinned[i] && lease && SEES &&
     (gate[P] == OPEN || gate[P] == RETREATED(gen[i])) ->
       gen[i]++; rang[i] = 0; gate[P] = TAKEN(gen[i]);
       shead[i] = opos[i]; tail[i] = opos[i]; pstart[i] = opos[i]; pgen[i] = gen[i]; txm[i] = R
  :: else
  fi
}
inline NoteFin() { fin_seen[i] = 1; framed[i] = 0 }

inline ConsiderDrained() {
  if :: rxm[i] == D && ipos[i] >= until[i] -> rxm[i] = T :: else fi;
  if :: rxm[i] == T -> fgen[i] = rgen[i] :: else fi
}

inline ConsiderProposal(did) {
  did = 0;
  if
  :: rxm[i] == T && attached[i] && !plain[i] && tpos[i] == ipos[i] && pgen[P] == rgen[i] + 1 && pstart[P] == tpos[i] &&
     (gate[i] == RETREATING(pgen[P]) || gate[i] == SHUTBEHIND) ->                                        /* Entry::kDrain */
       rgen[i] = pgen[P]; until[i] = tail[P]; rxm[i] = D; did = 1; ConsiderDrained()
  :: rxm[i] == T && attached[i] && !plain[i] && tpos[i] == ipos[i] && pgen[P] == rgen[i] + 1 && pstart[P] == tpos[i] &&
     (gate[i] == RETREATED(pgen[P]) || gate[i] == ANSWERED) ->                /* kTcp */
       rgen[i] = pgen[P]; until[i] = tpos[i]; fgen[i] = rgen[i]
  :: rxm[i] == T && attached[i] && !plain[i] && tpos[i] == ipos[i] && pgen[P] == rgen[i] + 1 && pstart[P] == tpos[i] &&
     gate[i] != RETREATING(pgen[P]) && gate[i] != SHUTBEHIND && gate[i] != RETREATED(pgen[P]) && gate[i] != ANSWERED ->
       if :: gate[i] == TAKEN(pgen[P]) -> gate[i] = ENTERED(pgen[P]) :: gate[i] == SHUTEARLY -> gate[i] = SHUT :: else fi;
       rxm[i] = R; rgen[i] = pgen[P]; head[i] = ipos[i];
#ifdef BAD_FRAMED_AFTER_FIN
       framed[i] = 1;
#else
       framed[i] = !fin_seen[i];
#endif
       did = 1
  :: else
  fi
}

inline TakeFrames(kind, pos) {
  do
  :: rxm[i] == R && !fin_seen[i] && QUEUED(P) ->
       tcp[P]?kind,pos;
       assert(kind != PAY);
       if
       :: kind == SWITCH ->
            assert(pos <= tail[P]);
            tpos[i] = pos; until[i] = tail[P]; rxm[i] = D; framed[i] = 0; ConsiderDrained()
       :: else
       fi;
       WakeSleepers(); kind = 0; pos = 0
  :: rxm[i] == R && !fin_seen[i] && !QUEUED(P) && reset[i] -> error[i] = 1; dead[i] = 1; NoteFin()
  :: rxm[i] == R && !fin_seen[i] && !QUEUED(P) && !reset[i] && fin[P] -> NoteFin()
  :: else -> break
  od
}

/* WaitFor's ends. */
inline BeginSleep(t, target) {
  registered[AT(i, t)] = 1;
  if :: sleepers[i] != 0 -> target = TCPBELL :: else -> if :: target = TCPBELL :: target = FAST_RCV + t fi fi;
  sleepers[i]++
}
inline AfterSleep(t) {
  sleepers[i]--;
  if :: sleepers[i] == 0 -> data_waiter[i] = NOBODY; space_waiter[i] = NOBODY :: else fi;
  registered[AT(i, t)] = 0; wake[AT(i, t)] = 0; fast[AT(i, t)] = 0
}

inline Attach() {
  if
  :: !attached[i] && !plain[i] && !pinned[i] && lease && !inkernel[AT(i, RCV)] && !inkernel[AT(i, SND)] ->
       attached[i] = 1; data_waiter[i] = TCPBELL; head[i] = ipos[i]; tail[i] = opos[i]
  :: true
  fi
}

/* PATIENT: a FIN comes only when both ends have read everything, so that it rescues no sleeper. Else: at any moment, for end 0. */
#ifdef PATIENT
#define ALL_READ(i) (opos[i] == TOTAL(i) && ipos[1 - (i)] == opos[i])
#define MAY_SHUT (opos[i] == TOTAL(i) && ((ALL_READ(0) && ALL_READ(1)) || !alive[P] || dead[i] || reset[i]))
#else
#define MAY_SHUT (opos[i] == TOTAL(i) || (i == 0 && opos[i] > 0))
#endif
/* A stranger has no ring: all of a replay must be in its TCP queue. */
#ifdef BAD_ABANDON_BEFORE_REPLAY
#define REPLAYED true
#else
#define REPLAYED (ipos[i] + len(tcp[P]) >= until[i])
#endif

#define HELD(word) (((word) & 7) == 2 || ((word) & 7) == 3 || ((word) & 7) == 6)
#define AGAIN 1
#define END   2
proctype Snd(byte i) {
  byte how, target, kind, pos;
  bit out, did;
  do
  :: atomic { alive[i] && opos[i] < TOTAL(i) ->                               /* Send: one turn */
       Attach();
       how = 0;
       if
       :: dead[i] || reset[i] -> how = END
       :: else ->
            if                                                                /* LookAround: once in a while */
            :: txm[i] == R && (!lease || flaps < FLAPS) -> if :: lease -> flaps++ :: else fi; StartLeaving()
            :: txm[i] == R && !QUEUED(P) && fin[P] -> NoteFin()
            :: true
            fi;
            if :: txm[i] == R && (gate[P] == SHUT || gate[P] == SHUTEARLY) -> StartLeaving() :: else fi;
            Flush();
            if :: txm[i] == L -> how = AGAIN :: else -> ConsiderGoingUp() fi;
            if
            :: txm[i] == R && fin_seen[i] && !reset[i] -> Bell()               /* asks TCP whether the peer has only half-closed */
            :: else
            fi;
            if :: reset[i] -> dead[i] = 1; how = END :: else fi;
            if
            :: how == 0 && txm[i] == R ->
                 Refresh();
                 if
                 :: ROOM(i) > 0 ->
                      if :: i == 0 -> ring0[opos[i] % CAP] = opos[i] :: else -> ring1[opos[i] % CAP] = opos[i] fi;
                      opos[i]++; tail[i] = opos[i];
                      target = data_waiter[P]; data_waiter[P] = NOBODY; RingForData(target)
#ifndef BAD_SLEEP_UNFRAMED
                 :: ROOM(i) == 0 && !framed[i] -> StartLeaving(); if :: txm[i] == L -> how = AGAIN :: else fi
                 :: ROOM(i) == 0 && framed[i] -> how = AGAIN
#else
                 :: ROOM(i) == 0 -> how = AGAIN
#endif
                 fi
            :: how == 0 && txm[i] == T && CANPUT(i) ->
                 Put(PAY, opos[i]); opos[i]++; if :: reset[i] -> how = END :: else fi
            :: how == 0 && txm[i] == T && !CANPUT(i) -> how = AGAIN
            :: else
            fi
       fi;
       if
       :: how == END -> opos[i] = opos[i]; goto finished
       :: how == AGAIN ->                                                     /* PrepareToSleep */
            out = 1;
            did = !dead[i];
            BeginSleep(SND, target);
            if :: plain[i] || !attached[i] -> inkernel[AT(i, SND)] = 1 :: else fi;
            if
            :: did && txm[i] == R ->
                 if
#ifndef BAD_SLEEP_UNFRAMED
                 :: !framed[i] || !lease -> StartLeaving(); did = 0
#endif
                 :: else ->
                      assert(!(framed[i] && fin_seen[i]));                    /* it would never sleep: the FIN stays readable */
                      space_waiter[i] = target; out = 0;
                      Refresh();
                      if :: ROOM(i) > 0 -> did = 0 :: else fi
                 fi
            :: else
            fi;
            target = 0
       :: else -> did = 0
       fi }
     if
     :: how == AGAIN ->
          if
          :: !did -> skip
          :: did && out && alive[i] && (CANPUT(i) || reset[i] || wake[AT(i, SND)] || fast[AT(i, SND)]) -> skip
          :: did && !out && alive[i] && (READABLE(i) || wake[AT(i, SND)] || fast[AT(i, SND)]) -> skip
          :: !alive[i] -> goto finished
          fi;
          atomic { AfterSleep(SND); inkernel[AT(i, SND)] = 0;
            if :: attached[i] && !plain[i] && READABLE(i) -> did = 0; ConsiderProposal(did); TakeFrames(kind, pos) :: else fi;   /* Look */
            how = 0; did = 0; out = 0 }
     :: else
     fi
  :: atomic { alive[i] && MAY_SHUT ->                 /* shutdown(SHUT_WR) or close */
       Flush(); shut[i] = 1; fin[i] = 1; goto finished }                      /* the FIN may overtake a replay: it is in the ring */
  :: !alive[i] -> break
  od;
finished:
  skip
}

/* The time limit of a hand-over: for a peer whose program makes no call, or that nothing could wake. */
#define NOBODY_CALLS (opos[P] == TOTAL(P) && (reader_gone[P] || !asked))

proctype Rcv(byte i) {
  byte how, target, kind, pos;
  bit did, asked;
  do
  :: atomic { alive[i] ->                                                      /* TryReceive */
       Attach();
       how = 0;
#ifndef BAD_READER_IGNORES_GATE
       /* a program may only ever receive from now on */
       if :: txm[i] == R && (gate[P] == SHUT || gate[P] == SHUTEARLY) && !reset[i] -> StartLeaving() :: else fi;
#endif
#ifndef BAD_REPLAY_LEFT_BEHIND
       Flush();
#endif
#ifdef BAD_END_BEFORE_PROPOSAL
       if :: rxm[i] == T && dead[i] -> how = END :: else -> ConsiderProposal(did) fi;
#else
       ConsiderProposal(did);
#endif
       if
       :: how == END -> skip
       :: how != END && rxm[i] == T ->
            do                                                                 /* a replay of what was read from the ring */
            :: tpos[i] < ipos[i] && QUEUED(P) ->
                 tcp[P]?kind,pos; assert(kind == PAY && pos == tpos[i]); tpos[i]++
            :: else -> break
            od;
            kind = 0; pos = 0;
            ConsiderProposal(did);
            if
            :: did -> skip
            :: !did && tpos[i] == ipos[i] && QUEUED(P) ->
                 tcp[P]?kind,pos; assert(kind == PAY && pos == tpos[i]); kind = 0; pos = 0; tpos[i]++; ipos[i]++;
                 if :: attached[i] -> head[i] = ipos[i] :: else fi
            :: !did && !QUEUED(P) && fin[P] && !reset[i] -> how = END
            :: !did && !QUEUED(P) && reset[i] -> error[i] = 1; how = END
            :: else -> how = AGAIN
            fi
       :: how != END && rxm[i] != T && ipos[i] < tail[P] && (rxm[i] == R || ipos[i] < until[i]) ->
            assert(!plain[i]);
            assert(RINGAT(P, ipos[i]) == ipos[i]);
            ipos[i]++; head[i] = ipos[i];
            if
            :: rxm[i] == D -> ConsiderDrained()
            :: else -> target = space_waiter[P]; space_waiter[P] = NOBODY; Ring(target)
            fi
       :: else ->
            if
            :: rxm[i] == D -> ConsiderDrained()
            :: rxm[i] == R && fin_seen[i] -> how = END
            :: else ->
                 TakeFrames(kind, pos);
                 if
                 :: rxm[i] == R && ipos[i] == tail[P] && !fin_seen[i] -> how = AGAIN
                 :: else
                 fi
            fi
       fi;
       if
       :: how == END ->
            if :: error[i] || gave_up[i] || gave_up[P] -> assert(!alive[P] || gave_up[i] || gave_up[P])
               :: else -> assert(ipos[i] == opos[P])
            fi;
            goto finished
       :: how == AGAIN ->                                                      /* PrepareToSleep */
            BeginSleep(RCV, target);
            if :: plain[i] || !attached[i] -> inkernel[AT(i, RCV)] = 1 :: else fi;
            kind = 1;                                                          /* whether to sleep */
            if
            :: rxm[i] == R ->
                 data_waiter[i] = target;
                 if :: ipos[i] < tail[P] || fin_seen[i] || dead[i] -> kind = 0 :: else fi
            :: rxm[i] == D -> kind = 0
            :: rxm[i] == T ->
#ifndef BAD_UNARMED_BY_TCP
                 if :: attached[i] -> data_waiter[i] = target :: else fi;      /* the peer may go up while we sleep */
#endif
                 ConsiderProposal(did); if :: did -> kind = 0 :: else fi
            fi;
            target = 0
       :: else
       fi }
     if
     :: how == AGAIN ->
          if
          :: !kind -> skip
          :: kind && alive[i] && (READABLE(i) || wake[AT(i, RCV)] || fast[AT(i, RCV)]) -> skip
#ifndef BAD_REPLAY_LEFT_BEHIND
          :: kind && alive[i] && txm[i] == L && CANPUT(i) -> skip             /* POLLOUT too: the rest of a replay */
#endif
          :: !alive[i] -> goto finished
          fi;
          atomic { AfterSleep(RCV); inkernel[AT(i, RCV)] = 0; how = 0; kind = 0; did = 0 }
     :: else
     fi
#ifdef HANDOVER
  :: atomic { alive[i] && attached[i] && !plain[i] && !hand_used && i == 1 -> hand_used = 1; pinned[i] = 1;
       ConsiderProposal(did); did = 0;                                         /* LeaveForGood: end 1 only */
       target = gate[i];
       if
       :: target == TAKEN(pgen[P]) -> gate[i] = SHUTEARLY
       :: target == RETREATING(pgen[P]) -> gate[i] = SHUTBEHIND
       :: target == RETREATED(pgen[P]) && pgen[P] == rgen[i] + 1 -> rgen[i] = pgen[P]; until[i] = tpos[i]; gate[i] = SHUT
       :: else -> gate[i] = SHUT
       fi;
#ifndef BAD_HANDOVER_RINGS_NOBODY
       how = data_waiter[P]; data_waiter[P] = NOBODY;
       if
       :: txm[i] == R -> skip                                                  /* its SWITCH wakes the peer */
       :: txm[i] == T && how >= FAST_RCV -> fast[AT(P, how - FAST_RCV)] = 1
       :: txm[i] == T && how < FAST_RCV -> pinned[i] = 0; ConsiderGoingUp(); pinned[i] = 1   /* only to send a SWITCH */
       :: else
       fi;
       how = 0;
       asked = (txm[i] == R || fast[AT(P, RCV)] || fast[AT(P, SND)]) }
#else
       asked = 1 }
#endif
     do
     :: atomic { alive[i] ->
          if :: txm[i] == R -> StartLeaving() :: else fi;
          Flush();
          ConsiderProposal(did);
          TakeFrames(kind, pos);
          if :: rxm[i] == D -> rxm[i] = T; ConsiderDrained() :: else fi;       /* AbandonRing */
          do
          :: rxm[i] == T && tpos[i] < ipos[i] && QUEUED(P) -> tcp[P]?kind,pos; assert(kind == PAY && pos == tpos[i]); tpos[i]++
          :: else -> break
          od;
          kind = 0; pos = 0;
          if
          :: (txm[i] == T || shut[i]) &&
             ((rxm[i] == T && tpos[i] == ipos[i] && REPLAYED && (!HELD(target) || (target >> 3) == rgen[i])) ||
              (gate[i] == ANSWERED && rxm[i] == T && tpos[i] == ipos[i]) ||
              (fin_seen[i] && ipos[i] == tail[P])) ->
               attached[i] = 0; plain[i] = 1; framed[i] = 0; rxm[i] = T; tpos[i] = ipos[i]; target = 0; did = 0; break
          :: else ->
               if
               :: fin_seen[i] || dead[i] || reset[i] || fin[P] || NOBODY_CALLS ->  /* else bytes of the ring are lost unseen */
                    gave_up[i] = 1; reset[P] = alive[P]; reset[i] = 1; dead[i] = 1; target = 0; goto finished
               :: else
               fi
          fi }
        (READABLE(i) || (txm[i] == L && CANPUT(i)) || !alive[i] || NOBODY_CALLS)
     :: !alive[i] -> goto finished
     od
#endif
  :: !alive[i] -> break
  od;
finished:
  reader_gone[i] = 1
}

#ifndef NOKILL
proctype Killer() {
  if
  :: atomic { alive[VICTIM] -> alive[VICTIM] = 0;
       if :: QUEUED(1 - VICTIM) -> reset[1 - VICTIM] = 1 :: else -> fin[VICTIM] = 1 fi }
  :: true
  fi
}
#endif

#ifdef AGENT_DIES
proctype Agent() { lease = 0 }
#endif

init {
  atomic {
    alive[0] = 1; alive[1] = 1;
    run Snd(0); run Rcv(0); run Snd(1); run Rcv(1);
#ifndef NOKILL
    run Killer();
#endif
#ifdef AGENT_DIES
    run Agent()
#endif
  }
}
