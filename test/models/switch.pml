/* One direction of a connection, S -> R, moving between kernel TCP and a ring and back. A byte's value is 0 or 1, frames begin with
   0, 1 or 2: so they cannot be told apart by their look.

     -DLOCAL   both ends on one node: the ring and the words are shared memory, a proposal is committed when it is stored.
     (else)    two nodes: proposal, acknowledgement, ring bytes and reports travel by agents, and that path may die for ever at any moment.

   `acc` is what the application of S was told is sent. A message carries {value, kind, at, until}; a receiver looks at `value` to tell
   payload from frames, and at `at` and `until` only of a SWITCH. The rest is for assertions. */

#ifndef N
#define N 4                     /* bytes in the stream */
#endif
#ifndef G
#define G 2                     /* generations */
#endif
#ifndef CAP
#define CAP 2                   /* ring bytes */
#endif
#ifndef SOCKBUF
#define SOCKBUF 3               /* TCP send and receive buffers together */
#endif

#define SWITCH_OF(m) (((m) + 1) % 3)   /* SWITCH's first byte */

#define PAY  0
#define BELL 1
#define SW1  2                  /* first byte of SWITCH: neither m nor ... */
#define SW2  3                  /* the rest of SWITCH: a full socket or a kill may come between */

#define TCP    0                /* phases of S */
#define RING   1
#define DOWN   2                /* SWITCH begun */
#define REPLAY 3                /* [q, spos) goes by TCP again */

byte v[N];                      /* the stream */
chan tcp = [SOCKBUF] of { byte, byte, byte, byte };
bool fin, killed, ended;         /* S's FIN is behind all of tcp; S was killed; R has reported the end */

/* S */
byte phase, spos, g, sX, sm, q;
bool committed, offered, aborted, lastaborted;
#define acc spos

/* Words: side[S].proposal_* and tail, side[R].attached, head, finished_generation. In the remote case these are R's copies. */
byte pgen, pX, pm, tail;
byte ring[CAP];                 /* holds the position of the byte */
bool attached;
byte head, finished;

/* R */
byte rpos, rtcp, cur, res, until;
bool framed, half, draining;

#ifdef LOCAL
#define HEAD     head
#define FINISHED finished
#define ATTACHED attached
#define LASTREAD rtcp
#else
bool link = true, a_attached, answered;
byte a_head, a_tcp, a_finished; /* R's reports, as S's agent knows them */
byte sring[CAP];                /* S's ring; `ring` is its mirror at R */
#define HEAD     a_head
#define FINISHED a_finished
#define ATTACHED a_attached
#define LASTREAD a_tcp
#endif

#ifdef LOCAL
#define COMMITTED_AT_ONCE true
#else
#define COMMITTED_AT_ONCE false
#endif
#define MAX(a, b) (((a) > (b)) -> (a) : (b))
#ifdef BAD_EARLY_PROPOSAL
#define SEES_PROPOSALS true
#else
#define SEES_PROPOSALS ATTACHED
#endif
#if defined(BAD_PROPOSE_BEFORE_FINISHED)
#define MAY_PROPOSE (g < G && SEES_PROPOSALS)
#else
#define MAY_PROPOSE (g < G && SEES_PROPOSALS && (g == 0 || (!lastaborted && FINISHED == g) || (lastaborted && LASTREAD > sX)))
#endif
#ifdef BAD_NO_ROOM_CHECK
#define ROOM true
#else
#define ROOM (spos - MAX(HEAD, sX) < CAP)
#endif
#ifdef LOCAL
#define MAY_FIN (phase == TCP || phase == RING)
#elif defined(BAD_FIN_IN_REMOTE_RING)
#define MAY_FIN (phase == TCP || (phase == RING && committed))
#else
#define MAY_FIN (phase == TCP)  /* the path may be lost later, and after a FIN nothing can be replayed */
#endif

#ifdef LOCAL
#define PUT() ring[spos % CAP] = spos; spos++; tail = spos
#define STILL_THERE(p) (ring[(p) % CAP] == (p))
#define RESUME_ANYWHERE true    /* from R's head to the tail: the ring stays mapped and R drains it up to there */
#define RING_END tail
#else
#define PUT() sring[spos % CAP] = spos; spos++
#define STILL_THERE(p) (sring[(p) % CAP] == (p))
#define RESUME_ANYWHERE false   /* R may never get what is in the ring */
#define RING_END until
#endif

proctype S() {
  do
  :: atomic { phase == TCP && spos < N && nfull(tcp) -> tcp!v[spos],PAY,spos,0; spos++ }

  :: atomic { phase == TCP && spos < N && MAY_PROPOSE ->
       g++; sX = spos; aborted = false; lastaborted = false;
#if defined(BAD_MARKER)
       sm = v[spos];
#elif defined(BAD_SWITCH_BYTE)
       sm = (v[spos] + 2) % 3;                                                /* SWITCH begins with b */
#else
       sm = (v[spos] + 1) % 3;                                                /* neither m nor SWITCH's first byte is b */
#endif
#ifdef LOCAL
#ifndef BAD_TAIL_AFTER_GENERATION
       tail = sX;
#endif
       pX = sX; pm = sm; pgen = g; committed = true; phase = RING
#ifdef BAD_TAIL_AFTER_GENERATION
       } tail = sX; atomic { skip
#endif
#else
       committed = false; offered = true; phase = RING; PUT()
#endif
     }

  :: atomic { phase == RING && spos < N && ROOM -> PUT() }

  :: atomic { phase == RING && committed && nfull(tcp) -> tcp!sm,BELL,0,0 }    /* also stale and needless ones */

  :: atomic { phase == RING && committed && nfull(tcp) ->                     /* down, for any reason */
       q = MAX(HEAD, sX);
#ifdef BAD_RESUME_TOO_FAR
       q = spos + COMMITTED_AT_ONCE;
#endif
       do :: q < spos && RESUME_ANYWHERE -> q++ :: break od;
       tcp!SWITCH_OF(sm),SW1,0,0; phase = DOWN }
  :: atomic { phase == DOWN && nfull(tcp) -> tcp!0,SW2,q,spos; phase = REPLAY }
  :: atomic { phase == REPLAY && q < spos && nfull(tcp) ->
       assert(STILL_THERE(q)); tcp!v[q],PAY,q,0; q++ }
  :: atomic { phase == REPLAY && q == spos -> phase = TCP; q = 0 }

#ifndef LOCAL
  :: atomic { phase == RING && !committed -> q = sX; aborted = true; lastaborted = true; phase = REPLAY }
#endif

  :: atomic { MAY_FIN -> fin = true; break }                                  /* shutdown or close */
#ifndef NOKILL
  :: atomic { fin = true; killed = true; break }
#endif
  od
}

#ifndef LOCAL
#define HEADROOM (MAX(a_head, sX) + CAP)
/* What S's agent knows of a stream that has ended: all is in TCP, or all of the ring has been written. */
#define TOLD_ALL (phase == TCP || (committed && !aborted && tail == spos))

/* Both agents and the link between them. */
proctype Control() {
  do
  :: atomic { link && offered && pgen != g -> pgen = g; pX = sX; pm = sm; tail = sX }    /* late, perhaps after an abort */
  :: atomic { link && offered && pgen == g && phase == RING && !committed && !killed -> committed = true; offered = false }
  :: atomic { link && committed && !aborted && pgen == g && tail < spos && tail < HEADROOM &&
              (phase != TCP) -> ring[tail % CAP] = sring[tail % CAP]; tail++ }
  :: atomic { link && (a_head != head || a_tcp != rtcp || a_finished != finished || a_attached != attached) ->
       a_head = head; a_tcp = rtcp; a_finished = finished; a_attached = attached }
  :: atomic { link && fin && killed && phase == RING && !committed && pgen == g -> committed = true; offered = false }
  :: atomic { link && fin && !answered && TOLD_ALL -> answered = true }
  :: link -> link = false
  :: ended -> break
  :: !link -> break
  od
}
#endif

#define GOVERNS (attached && cur == 0 && pgen > finished && pX == rtcp && rtcp == rpos)
inline Enter() { cur = pgen; framed = false; half = false; draining = false; assert(tail >= pX) }
inline FromRing() {
  assert(ring[rpos % CAP] == rpos); rpos++; head = rpos;
}
inline Finish() { finished = cur; cur = 0; draining = false; framed = false; rtcp = res; res = 0 }

proctype R() {
  byte val, kind, at, to;
#ifdef BAD_EOF_STALE_TAIL
  byte seen;
#endif
  do
  :: atomic { !attached -> attached = true }
  :: atomic { GOVERNS -> Enter() }
  :: atomic { cur != 0 && rpos < tail && (!draining || rpos < res) -> FromRing() }
  :: atomic { cur != 0 && draining && rpos >= res -> Finish() }
#ifdef BAD_FINISHED_BEFORE_DRAINED
  :: atomic { cur != 0 && draining -> finished = cur }
#endif
  :: atomic { !draining && tcp?[val,kind,at,to] ->
       tcp?val,kind,at,to;
       if :: GOVERNS -> Enter() :: else fi;                  /* the proposal is loaded after the receive */
       if
       :: cur == 0 ->
            assert(kind == PAY && at == rtcp);
            if :: rtcp < rpos -> skip :: else -> assert(val == v[rpos]); rpos++ fi;
            rtcp++
       :: cur != 0 && half ->
            assert(kind == SW2 && at <= acc);
            half = false; draining = true; res = at; until = to
       :: cur != 0 && !half && !COMMITTED_AT_ONCE && val != pm && val != SWITCH_OF(pm) ->     /* aborted */
            assert(!framed && kind == PAY && at == rtcp && rpos == rtcp);
            finished = cur; cur = 0; rtcp++; rpos++
       :: else ->
            assert(kind == BELL || kind == SW1);
            assert((val == pm) == (kind == BELL));
            framed = true; half = (kind == SW1)
       fi;
       val = 0; kind = 0; at = 0; to = 0 }

#ifdef BAD_EOF_STALE_TAIL
  :: seen = tail;
     atomic { if :: fin && len(tcp) == 0 && cur != 0 && !draining && rpos == seen -> assert(rpos == acc); ended = true; break
                 :: else -> seen = 0 fi }
#endif

#ifdef LOCAL
  /* The end: FIN seen and all of TCP read. Only then is the tail loaded (`acc` cannot grow any more). */
  :: atomic { fin && empty(tcp) && !GOVERNS && !draining && cur == 0 && rpos < RING_END ->
#ifdef BAD_CLOSE_RING_AT_SWITCH
       assert(rpos == acc);                                  /* a kill in the middle of a replay */
#endif
       FromRing() }
  :: atomic { fin && empty(tcp) && !GOVERNS && !draining && ((cur != 0 && rpos == tail) || (cur == 0 && rpos >= RING_END)) ->
       assert(rpos == acc); ended = true; break }
#else
  :: atomic { fin && empty(tcp) && !GOVERNS && !draining && cur == 0 && rpos < until && rpos < tail && answered -> FromRing() }
  :: atomic { fin && empty(tcp) && !GOVERNS && !draining && answered && ((cur != 0 && rpos == tail) || (cur == 0 && rpos >= until)) ->
       assert(rpos == acc); ended = true; break }             /* its agent has asked the other: EOF */
  :: atomic { fin && empty(tcp) && !link && !answered && !(cur != 0 && rpos < tail) ->
       if
       :: cur == 0 && rpos >= until && !attached -> assert(rpos == acc)   /* nothing was ever offered: EOF */
       :: else -> assert(killed || rpos == acc)                           /* ECONNRESET; only a kill may cost bytes */
       fi;
       ended = true; break }
  :: atomic { fin && empty(tcp) && link && killed && !answered && aborted && phase == REPLAY -> ended = true; break }  /* ECONNRESET */
#endif
  od
}

init {
  byte i = 0;
  atomic {
    do :: i < N -> if :: v[i] = 0 :: v[i] = 1 fi; i++ :: i >= N -> break od;
    i = 0;
    run S(); run R();
#ifndef LOCAL
    run Control()
#endif
  }
}
