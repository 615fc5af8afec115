package evaluate
import ("testing";"context";"fmt";"math";"time";"os";"strings")
type cls struct{ s0,q float64; name string }
type gg struct{ m,s float64; n int32 }
type ctr struct{ n int; last float64; t int64; e1,e3 float64; hist uint32 }
func (c *ctr) add(y float64,t int64){ if c.n==0 {c.e1=.42+.3*y;c.e3=.24+.6*y} else {c.e1+=.15*(y-c.e1);c.e3+=.4*(y-c.e3)}; c.n++;c.last=y;c.t=t; c.hist=c.hist<<1|uint32(y+.5)}
type eng struct{
 cl []cls
 comp []map[uint64]*gg
 cur []*gg
 z,v,p float64
 L map[int32]*ctr; LS,LI map[int64]*ctr; LT map[int64]*ctr
 prevItem map[int32]int32
 x []float64; idx []int; w,G map[int]float64
 hp float64
 opt map[string]bool
 lr float64
}
func newEng(opt string) *eng {
 e:=&eng{L:map[int32]*ctr{},LS:map[int64]*ctr{},LI:map[int64]*ctr{},LT:map[int64]*ctr{},prevItem:map[int32]int32{},w:map[int]float64{},G:map[int]float64{},opt:map[string]bool{},lr:.1}
 for _,o:=range strings.Split(opt,","){e.opt[o]=true}
 return e
}
func h64(a,b,c uint64) uint64 { x:=a*0x9E3779B97F4A7C15 ^ (b+0x632BE59BD9B4E019)*0xD1B54A32D192ED03 ^ (c+77)*0xA0761D6478BD642F; x^=x>>31; return x*0x9E3779B97F4A7C15}
func (e *eng) add(k int,key uint64, s0,q float64){
 for len(e.comp)<=k { e.comp=append(e.comp,map[uint64]*gg{}) }
 g:=e.comp[k][key]
 if g==nil { g=&gg{s:s0}; e.comp[k][key]=g } else if q>0 { g.s+=q }
 e.cur=append(e.cur,g)
}
func lg(n int) float64 { return math.Log1p(float64(n)) }
func bk(n int) uint64 { if n<4 {return uint64(n)}; if n<6 {return 4}; if n<10 {return 5}; if n<20 {return 6}; if n<50 {return 7}; return 8}
func (e *eng) predict(a *Answers,i int) float64 {
 u,q,k,t:=a.Learner[i],a.Item[i],a.Skill[i],a.Time[i]
 cu:=e.L[u]; if cu==nil {cu=&ctr{};e.L[u]=cu}
 cs:=e.LS[pair(u,k)]; if cs==nil {cs=&ctr{};e.LS[pair(u,k)]=cs}
 ci:=e.LI[pair(u,q)]; if ci==nil {ci=&ctr{};e.LI[pair(u,q)]=ci}
 e.cur=e.cur[:0]
 q1,q2:=.0005,.01
 e.add(0,uint64(u),1,q1)
 e.add(1,uint64(pair(u,k)),.6,q2)
 e.add(2,uint64(q),1,0)
 e.add(3,uint64(k),.6,0)
 e.add(4,0,4,0)
 if e.opt["prev"] { // item x last outcome
   e.add(5,h64(uint64(q),uint64(cu.hist&1)+2*b2(cu.n>0),1),.3,0)
 }
 if e.opt["prev2"] { e.add(6,h64(uint64(q),uint64(e.prevItem[u]),uint64(cu.hist&1)),.3,0) }
 if e.opt["lc"] { e.add(7,h64(uint64(k),bk(cs.n),3),.3,0) }
 if e.opt["li"] { e.add(8,h64(uint64(q),bk(ci.n),4),.3,0) }
 if e.opt["lih"] { e.add(9,h64(uint64(q),min(uint64(ci.n),2)*4+uint64(ci.hist&3),5),.5,0) }
 if e.opt["lsh"] { e.add(10,h64(uint64(k),min(uint64(cs.n),3)*8+uint64(cs.hist&7),5),.3,0) }
 if e.opt["sess"] { e.add(11,h64(uint64(u),uint64(t/7200),5),.3,.01) }
 if e.opt["ui"] { e.add(12,h64(uint64(u),uint64(q),5),.5,.03) }
 if e.opt["tags"] && a.Tags!=nil { for _,tg:=range a.Tags[q] { e.add(13,uint64(pair(u,tg)),.3,.01); e.add(14,uint64(tg),.3,0) } }
 z,v:=0.,0.
 for _,g:=range e.cur { z+=g.m; v+=g.s }
 e.z,e.v=z,v
 s:=z/math.Sqrt(1+math.Pi*v/8)
 e.p=sigmoid(s)
 if e.opt["nohead"] {return e.p}
 e.x=e.x[:0]; e.idx=e.idx[:0]
 f:=func(j int,x float64){ e.idx=append(e.idx,j); e.x=append(e.x,x)}
 f(0,1);f(1,s)
 if cu.n>0 { f(2,cu.e1-.6);f(3,cu.e3-.6);f(4,lg(cu.n)/3);f(5,cu.last-.5); if t>0 {f(6,math.Log1p(float64(max(0,t-cu.t)))/8)} } else {f(7,1)}
 if cs.n>0 { f(8,cs.e1-.6);f(9,cs.e3-.6);f(10,lg(cs.n)/2);f(11,cs.last-.5); if t>0 {d:=math.Log1p(float64(max(0,t-cs.t)))/8; f(12,d);f(13,(cs.last-.5)*d)} } else {f(14,1)}
 if ci.n>0 { f(15,1);f(16,ci.last-.5);f(17,lg(ci.n)); w:=0.; for b:=0;b<32;b++{ w+=float64(ci.hist>>b&1)}; f(18,math.Log1p(w)) }
 base:=100+int(k)*3
 f(base,1); if cs.n>0 {f(base+1,lg(cs.n)); f(base+2,cs.e1-.6)}
 hz:=0.
 for n,j:=range e.idx { w,ok:=e.w[j]; if !ok { if j==1 {w=1}; e.w[j]=w; e.G[j]=1}; hz+=w*e.x[n] }
 e.hp=sigmoid(hz)
 return e.hp
}
func b2(b bool) uint64 { if b {return 1}; return 0}
func (e *eng) learn(a *Answers,i int){
 u,q,k,t:=a.Learner[i],a.Item[i],a.Skill[i],a.Time[i]
 y:=a.Score[i]
 if !e.opt["nohead"] {
 for n,j:=range e.idx { g:=(y-e.hp)*e.x[n]; e.G[j]+=g*g; e.w[j]+=e.lr*g/math.Sqrt(e.G[j]) }
 }
 hh:=max(e.p*(1-e.p),1e-4); D:=1+hh*e.v
 for _,g:=range e.cur { m:=g.s*(y-e.p)/D; g.m+=m; g.s-=g.s*g.s*hh/D; g.n++ }
 e.L[u].add(y,t); e.LS[pair(u,k)].add(y,t); e.LI[pair(u,q)].add(y,t)
 e.prevItem[u]=q
}
func TestX(t *testing.T){
 d:="/work/shared/datasets/"
 opts:=strings.Split(os.Getenv("OPTS"),"|")
 for _,c:=range []struct{n,tr,an,sk string; time bool}{{"statics",d+"statics/train.csv.gz",d+"statics/test.csv.gz",d+"statics/q.csv.gz",false},{"algT",  "",d+"algebra05/answers.csv.gz",d+"algebra05/q.csv.gz",true},{"algF",  "",d+"algebra05/answers.csv.gz",d+"algebra05/q.csv.gz",false}}{
  if c.n=="algF" && os.Getenv("F")=="" {continue}
  a,err:=Load(context.Background(),c.tr,c.an,c.sk); if err!=nil{t.Fatal(err)}
  if c.time {a.sortByTime()}
  for _,o:=range opts{
   s:=newEng(o)
   var p,y []float64
   t0:=time.Now()
   for i:=range a.Len(){ q:=s.predict(a,i); if i>=a.Scored {p=append(p,q);y=append(y,a.Score[i])}; s.learn(a,i)}
   fmt.Printf("%-8s %-40s %.4f  %d ns\n",c.n,o,measure(p,y),int(time.Since(t0).Nanoseconds())/a.Len())
  }
 }
}
