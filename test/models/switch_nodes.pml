/* One direction of a connection between two nodes, S -> R, with the agents A (of S's node) and B (of R's) and the link between them: what
   channel/remote.h and node-agent/transport/mirror do. A byte's value is 0 or 1, frames begin with 0, 1 or 2, as in switch.pml.

   The link has two lanes for ring bytes (a generation uses one) and one for control, each in order, with no order between them. They are
   lost at any moment for ever, with what is on its way; what was carried out may be lost to the one who posted it. Then both agents notice,
   each in its own time, and may once make a new path (RELINK). An agent may be killed (KILL_A, KILL_B): its words stay as they are, its pod
   notices that the lease is over. S is killed or shuts down at any moment.

   `acc` is what the application of S was told is sent. Fields of TCP messages are those of switch.pml. */

#ifndef N
#define N 3                     /* bytes in the stream */
#endif
#ifndef G
#define G 2                     /* generations */
#endif
#ifndef CAP
#define CAP 2                   /* ring bytes */
#endif
#ifndef SOCKBUF
#define SOCKBUF 3
#endif
#ifndef LANE
#define LANE 2                  /* messages on their way on a lane */
#endif

#define SWITCH_OF(m) (((m) + 1) % 3)
#define PAY  0
#define BELL 1
#define SW1  2
#define SW2  3

#define TCP    0                /* phases of S */
#define RING   1
#define DOWN   2
#define REPLAY 3

#define IDLE      0             /* SideWords::commit */
#define PROPOSED  1
#define COMMITTED 2
#define ABORTING  3

#define PROPOSE 0               /* control records */
#define TELL    1
#define COMMIT  2
#define STATE   3
#define ASK     4

#define BYTCP  1                /* EofAnswer */
#define INRING 2
#define CUT    3

#define MAX(a, b) (((a) > (b)) -> (a) : (b))

byte v[N];
chan tcp = [SOCKBUF] of { byte, byte, byte, byte };
bool fin, killed, ended;

/* S and its slot: words of its own, and the copies that A keeps. */
byte phase, spos, g, sX, sm, q, spath;
byte commit;                    /* changed by compare-and-swap */
byte sgen;                      /* proposal_generation */
byte sring[CAP];
bool lastaborted;
byte c_head, c_finished, a_path = 1;
bool c_attached, a_lease = true;
#define acc spos

/* R and its slot: words of its own, and the copies that B keeps. */
byte rpos, rtcp, cur, finished, res;
bool attached, framed, half, draining, eofq;
byte pgen, pX, pm, tail, ring[CAP], answer, b_path = 1;
bool b_lease = true;

/* A */
bool a_alive = true, mirroring, asked;
byte agen, asent, ahead, posted, done;
/* B */
bool b_alive = true, toldq, told_attached;
byte told_head, told_finished;

/* The link */
bool link = true;
byte path = 1;                  /* which one; another after RELINK */
byte executed;                  /* writes that were carried out on this path; `done`: those A knows of */
chan lane0 = [LANE] of { byte, byte };          /* position, new tail (0: none) */
chan lane1 = [LANE] of { byte, byte };
chan seen = [LANE] of { byte };                 /* B's completions: tails */
chan ab = [LANE] of { byte, byte, byte, byte };
chan ba = [LANE] of { byte, byte, byte, byte };

#define PATH_HOLDS (a_lease && a_path == spath)
#ifdef BAD_PROPOSE_BEFORE_FINISHED
#define MAY_PROPOSE (g < G && c_attached && a_lease && a_path != 0)
#else
#define MAY_PROPOSE (g < G && c_attached && a_lease && a_path != 0 && (c_finished == g || (lastaborted && c_head > sX)))
#endif
#ifdef BAD_NO_ROOM_CHECK
#define ROOM true
#else
#define ROOM (spos - MAX(c_head, sX) < CAP)
#endif
#define STILL_THERE(p) (sring[(p) % CAP] == (p))
#define PUT() sring[spos % CAP] = spos; spos++

proctype S() {
  do
  :: atomic { phase == TCP && spos < N && nfull(tcp) -> tcp!v[spos],PAY,spos,0; spos++ }

  :: atomic { phase == TCP && spos < N && MAY_PROPOSE ->
       g++; sX = spos; lastaborted = false; spath = a_path;
#ifdef BAD_MARKER
       sm = v[spos];
#else
       sm = (v[spos] + 1) % 3;
#endif
       commit = PROPOSED; sgen = g; phase = RING; PUT() }

  :: atomic { phase == RING && spos < N && ROOM -> PUT() }
  :: atomic { phase == RING && commit == COMMITTED && nfull(tcp) -> tcp!sm,BELL,0,0 }

  :: atomic { phase == RING && commit == COMMITTED && nfull(tcp) ->
#ifdef BAD_RESUME_TOO_FAR
       q = spos;
#else
       q = MAX(c_head, sX);
#endif
       tcp!SWITCH_OF(sm),SW1,0,0; phase = DOWN }
  :: atomic { phase == DOWN && nfull(tcp) -> tcp!0,SW2,q,0; phase = REPLAY }
  :: atomic { phase == REPLAY && q < spos && nfull(tcp) -> assert(STILL_THERE(q)); tcp!v[q],PAY,q,0; q++ }
#ifdef BAD_IDLE_BEFORE_REPLAY
  :: atomic { phase == REPLAY && commit != IDLE -> commit = IDLE }
#endif
  :: atomic { phase == REPLAY && q == spos -> phase = TCP; q = 0; commit = IDLE }

#ifdef BAD_ABORT_BLINDLY
  :: phase == RING && commit == PROPOSED ->       /* a look, and a store later */
     atomic { commit = ABORTING; q = sX; lastaborted = true; phase = REPLAY }
#else
  :: atomic { phase == RING && commit == PROPOSED -> commit = ABORTING; q = sX; lastaborted = true; phase = REPLAY }
#endif

#ifdef BAD_FIN_IN_RING
  :: atomic { phase == TCP || (phase == RING && commit == COMMITTED) -> fin = true; break }
#else
  :: atomic { phase == TCP -> fin = true; break }
#endif
#ifndef NOKILL
  :: atomic { fin = true; killed = true; break }
#endif
  od
}

#ifdef BAD_PROPOSE_UNSETTLED
#define SETTLED true
#else
#define SETTLED (done == posted)
#endif
#ifdef BAD_ANSWER_BEFORE_DONE
#define ALL_WRITTEN (asent == spos)
#else
#define ALL_WRITTEN (asent == spos && done == posted)
#endif
#ifdef BAD_NO_ROOM_CHECK
#define A_ROOM true
#else
#define A_ROOM (asent < ahead + CAP)
#endif
#define LANE_ROOM ((agen % 2 == 0 && nfull(lane0)) || (agen % 2 == 1 && nfull(lane1)))
inline Post(position, new_tail) {
  if :: agen % 2 == 0 -> lane0!position,new_tail :: else -> lane1!position,new_tail fi
}
#define WORKS_A (a_alive && a_path != 0)
#define WORKS_B (b_alive && b_path != 0)

proctype A() {
  byte x, y, z;
  do
  :: atomic { WORKS_A && sgen != agen && commit == PROPOSED && SETTLED && nfull(ab) ->
       agen = sgen; mirroring = false; asent = sX; ahead = sX; ab!PROPOSE,sgen,sX,sm }
  :: atomic { WORKS_A && mirroring && commit == COMMITTED && sgen == agen && asent < spos && A_ROOM && LANE_ROOM ->
#ifdef BAD_POSITION_FIRST
       Post(255, asent + 1); Post(asent, 0);
#else
       Post(asent, asent + 1);
#endif
       posted++; asent++ }
  :: atomic { WORKS_A && link && done != executed -> done = executed }           /* acknowledgements */
  :: atomic { WORKS_A && ba?[COMMIT,x,y,z] -> ba?COMMIT,x,y,z;
       if
#ifdef BAD_COMMIT_BLINDLY
       :: x == agen -> commit = COMMITTED; mirroring = true
#else
       :: x == agen && commit == PROPOSED && sgen == agen -> commit = COMMITTED; mirroring = true
#endif
       :: else
       fi; x = 0; y = 0; z = 0 }
  :: atomic { WORKS_A && ba?[STATE,x,y,z] -> ba?STATE,x,y,z;
       c_head = MAX(c_head, x); c_finished = y; c_attached = z;
       if :: mirroring && x > ahead && x <= asent -> ahead = x :: else fi;
       x = 0; y = 0; z = 0 }
  :: atomic { WORKS_A && ba?[ASK,x,y,z] -> ba?ASK,x,y,z; asked = true; x = 0; y = 0; z = 0 }
  :: atomic { WORKS_A && asked && nfull(ab) && commit == IDLE -> ab!TELL,BYTCP,0,0; asked = false }
  :: atomic { WORKS_A && asked && nfull(ab) && commit == ABORTING -> ab!TELL,CUT,0,0; asked = false }
  :: atomic { WORKS_A && asked && nfull(ab) && commit == PROPOSED && sgen == agen && spath != a_path -> ab!TELL,CUT,0,0; asked = false }
  :: atomic { WORKS_A && asked && nfull(ab) && commit == COMMITTED && !mirroring -> ab!TELL,CUT,0,0; asked = false }
  :: atomic { WORKS_A && asked && nfull(ab) && commit == COMMITTED && mirroring && ALL_WRITTEN ->
       ab!TELL,INRING,spos,0; asked = false }
  :: atomic { a_alive && !link && a_path != 0 -> a_path = 0; mirroring = false; asked = false }     /* its queue pairs have failed */
#ifdef KILL_A
  :: atomic { a_alive -> a_alive = false; link = false }
#endif
  :: atomic { !a_alive && a_lease -> a_lease = false }
  :: ended -> break
  od
}

proctype B() {
  byte x, y, z;
  do
  :: atomic { WORKS_B && nfull(ba) && ab?[PROPOSE,x,y,z] -> ab?PROPOSE,x,y,z;
       answer = 0; tail = y; pX = y; pm = z; pgen = x; ba!COMMIT,x,0,0; x = 0; y = 0; z = 0 }
  :: atomic { WORKS_B && seen?[x] -> seen?x; if :: x > tail -> tail = x :: else fi; x = 0 }
  :: atomic { WORKS_B && nfull(ba) && (told_head != rpos || told_finished != finished || told_attached != attached) ->
       ba!STATE,rpos,finished,attached; told_head = rpos; told_finished = finished; told_attached = attached }
  :: atomic { WORKS_B && nfull(ba) && eofq && !toldq -> ba!ASK,0,0,0; toldq = true }
  :: atomic { WORKS_B && ab?[TELL,x,y,z] -> ab?TELL,x,y,z;
       if :: x == INRING && y > tail -> tail = y :: else fi;
       answer = x; x = 0; y = 0; z = 0 }
  :: atomic { b_alive && !link && b_path != 0 -> b_path = 0 }
#ifdef KILL_B
  :: atomic { b_alive -> b_alive = false; link = false }
#endif
  :: atomic { !b_alive && b_lease -> b_lease = false }
  :: ended -> break
  od
}

inline Clear() {
  do :: lane0?x,y :: lane1?x,y :: empty(lane0) && empty(lane1) -> break od;
  do :: seen?x :: empty(seen) -> break od;
  do :: ab?x,y,z,w :: empty(ab) -> break od;
  do :: ba?x,y,z,w :: empty(ba) -> break od;
  x = 0; y = 0; z = 0; w = 0
}

inline CarryOut() {
  if :: x != 255 -> ring[x % CAP] = x; executed++ :: else fi;
  if :: y != 0 -> seen!y :: else fi;
  x = 0; y = 0
}

/* The network and both devices. */
proctype Link() {
  byte x, y, z, w;
  do
  :: atomic { link && nfull(seen) && lane0?[x,y] -> lane0?x,y; CarryOut() }
  :: atomic { link && nfull(seen) && lane1?[x,y] -> lane1?x,y; CarryOut() }
  :: atomic { link -> link = false }
#ifdef RELINK
  :: atomic { !link && a_alive && b_alive && a_path == 0 && b_path == 0 && path == 1 ->
       Clear();                 /* of queue pairs that were destroyed */
       path = 2; link = true; a_path = 2; b_path = 2;
       posted = 0; done = 0; executed = 0;
       agen = sgen;             /* what was proposed before was for another path */
       mirroring = false; asked = false; toldq = false;
       told_head = 0; told_finished = 0; told_attached = false }
#endif
  :: ended -> break
  od
}

#define GOVERNS (attached && cur == 0 && pgen > finished && pX == rtcp && rtcp == rpos)
inline Enter() { cur = pgen; framed = false; half = false; draining = false; assert(tail >= pX) }
inline FromRing() { assert(ring[rpos % CAP] == rpos); rpos++ }
inline Finish() { finished = cur; cur = 0; draining = false; framed = false; rtcp = res; res = 0 }
#define AT_END (fin && empty(tcp) && !GOVERNS && !draining)
#define NO_ANSWER_COMES ((!b_lease || b_path == 0) && answer == 0)

proctype R() {
  byte val, kind, at, to;
  do
  :: atomic { !attached -> attached = true }
  :: atomic { GOVERNS -> Enter() }
  :: atomic { cur != 0 && rpos < tail && (!draining || rpos < res) -> FromRing() }
  :: atomic { cur != 0 && draining && rpos >= res -> Finish() }
  :: atomic { !draining && tcp?[val,kind,at,to] ->
       tcp?val,kind,at,to;
       if :: GOVERNS -> Enter() :: else fi;
       if
       :: cur == 0 ->
            assert(kind == PAY && at == rtcp);
            if :: rtcp < rpos -> skip :: else -> assert(val == v[rpos]); rpos++ fi;
            rtcp++
       :: cur != 0 && half ->
            assert(kind == SW2 && at <= acc);
            half = false; draining = true; res = at
       :: cur != 0 && !half && val != pm && val != SWITCH_OF(pm) ->           /* aborted */
            assert(!framed && kind == PAY && at == rtcp && rpos == rtcp);
            finished = cur; cur = 0; rtcp++; rpos++
       :: else ->
            assert(kind == BELL || kind == SW1);
            framed = true; half = (kind == SW1)
       fi;
       val = 0; kind = 0; at = 0; to = 0 }
  :: atomic { AT_END && !eofq -> eofq = true }

#ifdef BAD_END_UNASKED
  :: atomic { AT_END && cur != 0 && rpos == tail -> assert(rpos == acc); ended = true; break }
#endif
  :: atomic { AT_END && answer == BYTCP && (cur == 0 || rpos == tail) -> assert(rpos == acc); ended = true; break }
  :: atomic { AT_END && answer == INRING && rpos < tail && cur == 0 -> FromRing() }       /* a replay that death cut short */
  :: atomic { AT_END && answer == INRING && rpos >= tail -> assert(rpos == acc); ended = true; break }
  :: atomic { AT_END && answer == CUT -> assert(killed); ended = true; break }            /* ECONNRESET */
  /* Nobody can say: ECONNRESET. Only a kill may have cost bytes. */
  :: atomic { AT_END && eofq && NO_ANSWER_COMES && !(cur != 0 && rpos < tail) -> assert(killed || rpos == acc); ended = true; break }
  od
}

init {
  byte i = 0;
  atomic {
    do :: i < N -> if :: v[i] = 0 :: v[i] = 1 fi; i++ :: i >= N -> break od;
    i = 0;
    run S(); run R(); run A(); run B(); run Link()
  }
}
